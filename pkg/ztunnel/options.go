package ztunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

const (
	// connectTimeout bounds a connection's way to its destination.
	connectTimeout = 10 * time.Second
	// workloadWait is how long the pod itself may be unknown to the state.
	workloadWait = 5 * time.Second
)

// The default quotas of one pod.
const (
	defaultConnections = 20_000
	defaultDials       = 2_048
)

// Certificates holds the identities of the node's pods; identity.Manager does.
type Certificates interface {
	Acquire(mesh.Identity)
	Release(mesh.Identity)
	Get(context.Context, mesh.Identity) (*identity.Certificate, error)
	ClientTLS(source mesh.Identity, expected []string) *tls.Config
	ServerTLS(mesh.Identity) *tls.Config
}

// State is the mesh as the node knows it; store.Store is.
type State interface {
	Snapshot() *store.Snapshot
	WaitPolicies(ctx context.Context, w *mesh.Workload) (*store.Snapshot, []*mesh.Policy, []string)
}

// Options of [New].
type Options struct {
	State        State               // must be non-nil
	Certificates Certificates        // must be non-nil
	Recorder     *telemetry.Recorder // must be non-nil
	Logger       *slog.Logger        // must be non-nil
	// Ready closes when there is a state to decide with. It must be non-nil.
	Ready <-chan struct{}
	// Accept closes when connections may be taken: until then they are another agent's,
	// which has the same listeners. Nil takes them at once.
	Accept <-chan struct{}
	// Resolve finds the addresses of endpoints that are host names; nil is the
	// machine's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Network is the node's; TrustDomain is its pods'.
	Network, TrustDomain string
	// MaxConnections bounds a pod's live connections, each way: those past it are
	// refused. MaxDials bounds those on their way to a destination: they wait.
	// Zero is 20,000 and 2,048.
	MaxConnections, MaxDials int
}

func (o *Options) complete() error {
	if o.MaxConnections == 0 {
		o.MaxConnections = defaultConnections
	}
	if o.MaxDials == 0 {
		o.MaxDials = defaultDials
	}
	if o.State == nil || o.Certificates == nil || o.Recorder == nil || o.Logger == nil || o.Ready == nil {
		return errors.New("ztunnel: State, Certificates, Recorder, Logger and Ready must be set")
	}
	return nil
}

// PodInfo is who a pod is, as its creator says.
type PodInfo struct {
	UID, Namespace, Name, ServiceAccount string
	Addrs                                []netip.Addr
	// TakenOver pods were served by another agent until now: their connections are
	// that one's, or were judged by it.
	TakenOver bool
}
