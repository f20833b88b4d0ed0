package redirect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
	"github.com/fairlead-mesh/fairlead/pkg/redirect/bpfobj"
)

// The agent's ports in a pod's namespace.
const (
	portOutbound = 15001
	portInbound  = 15006
	portHBONE    = 15008
)

// Pod is an enrolled pod: the sockets in its namespace, and its place in the
// kernel's tables. It is valid until Close.
type Pod struct {
	// Constant after Enroll.
	r      *Redirector
	spec   PodSpec
	ns     *netns.NS
	cookie uint64
	device uint32
	nsid   int32 // see struct veth
	ip6    bool  // the namespace has IPv6

	outbound, inbound, hbone *net.TCPListener

	// mu guards below.
	mu               sync.Mutex
	entry            bpfobj.ConnectPod // as the tables have it
	installed        bool              // the tables have it from this agent
	tcpOnly          bool              // as SetTCPOnly was last told
	released, closed bool
}

// UID is the pod's.
func (p *Pod) UID() string { return p.spec.UID }

// Cookie is that of its network namespace.
func (p *Pod) Cookie() uint64 { return p.cookie }

// Outbound accepts the pod's captured connections.
func (p *Pod) Outbound() net.Listener { return p.outbound }

// InboundPlain accepts plaintext connections to the pod.
func (p *Pod) InboundPlain() net.Listener { return p.inbound }

// InboundHBONE accepts tunnels to the pod.
func (p *Pod) InboundHBONE() net.Listener { return p.hbone }

// OriginalDestination is where the pod meant to go with a captured connection.
func (p *Pod) OriginalDestination(c *net.TCPConn) (o netip.AddrPort, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return o, err
	}
	var origin bpfobj.ConnectOrigin
	var lookup error
	if err := raw.Control(func(fd uintptr) { lookup = p.r.connect.Accepted.Lookup(int32(fd), &origin) }); err != nil {
		return o, err
	}
	if errors.Is(lookup, ebpf.ErrKeyNotExist) {
		return o, ErrNoOrigin
	}
	if lookup != nil {
		return o, fmt.Errorf("original destination: %w", lookup)
	}
	return netip.AddrPortFrom(fromKernel(origin.Dst), origin.Port), nil
}
