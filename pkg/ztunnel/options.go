package ztunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

const (
	// connectTimeout bounds a connection's way to its destination.
	connectTimeout = 10 * time.Second
	// workloadWait is how long the pod itself may be unknown to the state.
	workloadWait = 5 * time.Second
	// maxConnections bounds the live connections of one pod, each way.
	maxConnections = 20_000
)

// Certificates makes the TLS configurations of tunnels; identity.Manager does.
type Certificates interface {
	Acquire(mesh.Identity)
	Release(mesh.Identity)
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
	State        State
	Certificates Certificates
	Recorder     *telemetry.Recorder
	Logger       *slog.Logger
	// Ready closes when there is a state to decide with.
	Ready <-chan struct{}
	// Network is the node's; Cluster and TrustDomain are its pods'.
	Network, Cluster, TrustDomain string
}

func (o *Options) validate() error {
	if o.State == nil || o.Certificates == nil || o.Recorder == nil || o.Logger == nil || o.Ready == nil {
		return errors.New("ztunnel: State, Certificates, Recorder, Logger and Ready must be set")
	}
	return nil
}

// PodInfo is who a pod is, as its creator says.
type PodInfo struct {
	UID, Namespace, Name, ServiceAccount string
	Addrs                                []netip.Addr
}
