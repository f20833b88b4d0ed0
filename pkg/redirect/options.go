package redirect

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"regexp"

	"golang.org/x/sys/unix"
)

// BPFFS is where the BPF file system is mounted by default.
const BPFFS = "/sys/fs/bpf"

// Options of a [Redirector].
type Options struct {
	// Instance names this agent's pins; several agents share one kernel in the
	// lab. Lower case letters, digits, dashes and underscores.
	Instance string
	// BPFFS is where the BPF file system is mounted; "" is [BPFFS].
	BPFFS string
	// CgroupPath is the root of cgroup v2; "" finds its mount.
	CgroupPath string
	// KubeletCgroup is the cgroup v2 directory of those whose connections to pods
	// are probes; "" knows none.
	KubeletCgroup string
	// NodeNetNS is the path of the node's network namespace, where the pods' devices
	// have their other end and probes come from; "" is the calling thread's.
	NodeNetNS string
	// Mounted refuses to go without a BPF file system, where the agent would mount one
	// itself otherwise: in a container its mounts are not the node's.
	Mounted bool
	// Beside is whether another agent has the instance: until [Redirector.Own] nothing of
	// what it has is changed.
	Beside bool
	Logger *slog.Logger // must be non-nil

	withoutTCX bool // of tests: as on kernels before 6.6
}

var instanceName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

func (o *Options) complete() error {
	if o.Logger == nil {
		return errors.New("redirect: Logger must be set")
	}
	if !instanceName.MatchString(o.Instance) {
		return fmt.Errorf("redirect: instance %q: want lower case letters, digits and dashes", o.Instance)
	}
	if o.BPFFS == "" {
		o.BPFFS = BPFFS
	}
	if err := o.mount(); err != nil {
		return err
	}
	if o.CgroupPath == "" {
		path, err := findCgroup2()
		if err != nil {
			return err
		}
		o.CgroupPath = path
	}
	return nil
}

func (o *Options) mount() error {
	if o.Mounted {
		return isBPFFS(o.BPFFS)
	}
	return mountBPFFS(o.BPFFS)
}

// mountBPFFS mounts the BPF file system where it is not: pins need one, and few
// distributions mount it early.
func mountBPFFS(path string) error {
	if isBPFFS(path) == nil {
		return nil
	}
	if err := unix.Mount("bpf", path, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("redirect: no BPF file system at %s and it cannot be mounted (mount -t bpf bpf %s): %w", path, path, err)
	}
	return nil
}

func isBPFFS(path string) error {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return fmt.Errorf("redirect: BPF file system at %s: %w", path, err)
	}
	if s.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("redirect: %s is no BPF file system: mount one on the node (mount -t bpf bpf /sys/fs/bpf) before the agent starts", path)
	}
	return nil
}

// cgroupRoots are where the root of cgroup v2 may be mounted: the node's, as a
// container sees it, first, for a container's own is no root.
var cgroupRoots = []string{"/host/sys/fs/cgroup", "/host/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"}

// findCgroup2 returns the root of cgroup v2, on hybrid systems too.
func findCgroup2() (string, error) {
	for _, path := range cgroupRoots {
		var s unix.Statfs_t
		if unix.Statfs(path, &s) == nil && s.Type == unix.CGROUP2_SUPER_MAGIC {
			return path, nil
		}
	}
	return "", errors.New("redirect: no cgroup v2 at /sys/fs/cgroup or /sys/fs/cgroup/unified: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
}

// PodSpec is a pod to enrol.
type PodSpec struct {
	UID string
	// NetNS is the path of its network namespace.
	NetNS string
	// Cookie is that namespace's; 0 is whatever is at the path.
	Cookie uint64
	// Addrs are its addresses: at most one of each family.
	Addrs []netip.Addr
	// HostInterface is the node's side of its veth; "" finds it from the pod's.
	HostInterface string
	// Listeners are those of another agent that serves the pod, in the order of
	// [Pod.Listeners], to be shared; nil opens new ones.
	Listeners []*os.File
	// TCPOnly drops what is not TCP at the guard.
	TCPOnly bool
}

func (s *PodSpec) families() (ip4, ip6 netip.Addr, err error) {
	for _, a := range s.Addrs {
		a = a.Unmap().WithZone("")
		switch {
		case a.Is4() && !ip4.IsValid():
			ip4 = a
		case a.Is6() && !ip6.IsValid():
			ip6 = a
		default:
			return ip4, ip6, fmt.Errorf("pod %s: address %s: at most one of each family is supported", s.UID, a)
		}
	}
	if !ip4.IsValid() && !ip6.IsValid() {
		return ip4, ip6, fmt.Errorf("pod %s: no address", s.UID)
	}
	return ip4, ip6, nil
}
