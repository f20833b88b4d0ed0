package telemetry

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Direction is the side of a connection that reports it.
type Direction uint8

// Outbound is reported by the client's node (reporter "source"), Inbound by the
// server's ("destination").
const (
	Outbound Direction = iota
	Inbound
)

func (d Direction) String() string {
	if d == Inbound {
		return "inbound"
	}
	return "outbound"
}

func (d Direction) reporter() string {
	if d == Inbound {
		return "destination"
	}
	return "source"
}

// Info is what is known of a connection when it opens.
type Info struct {
	Direction Direction
	// Source and Destination are nil where the address is not of the mesh.
	Source, Destination *mesh.Workload
	// Service is what the client asked for; nil for an address.
	Service *mesh.Service
	// SourceIdentity and DestinationIdentity are zero unless mutual TLS proved them.
	SourceIdentity, DestinationIdentity mesh.Identity

	SourceAddr netip.AddrPort
	// DestinationAddr is the socket's peer: port 15008 for a tunnel.
	DestinationAddr netip.AddrPort
	// Authority is the tunnel's CONNECT authority; empty without a tunnel.
	Authority string
	// MutualTLS says that the bytes went through a tunnel.
	MutualTLS bool
}

// Flag is a value of the label response_flags.
type Flag string

// The flags, as Istio's node proxy names them.
const (
	FlagNone          Flag = "-"
	FlagDeny          Flag = "DENY"
	FlagConnect       Flag = "CONNECT"
	FlagTLS           Flag = "TLS_FAILURE"
	FlagH2            Flag = "H2_HANDSHAKE_FAILURE"
	FlagNetworkPolicy Flag = "NETWORK_POLICY"
	FlagIdentity      Flag = "IDENTITY_ERROR"
	FlagRevoked       Flag = "CERT_REVOKED"
)

// Result is how a connection ended. The zero value is an orderly end.
type Result struct {
	// Err is nil for an orderly end; its text goes to the record.
	Err error
	// Flag is FlagNone when empty.
	Flag Flag
}

// Record is one open connection. The byte counters may be added to by anyone;
// the other methods are for the connection's owner.
type Record struct {
	// ToServer and ToClient count the application's bytes.
	ToServer, ToClient atomic.Uint64

	recorder *Recorder
	info     Info
	opened   time.Time
	counters *connCounters
	closed   atomic.Bool

	// mu guards below.
	mu             sync.Mutex
	policy, reason string
	reportedServer uint64
	reportedClient uint64
	established    bool
}

// Decided notes which policy let the connection through or refused it, and why.
func (r *Record) Decided(policy, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.policy, r.reason = policy, reason
}

// Resolve completes what was not known at opening (the chosen endpoint, its
// proven identity). Call it before Established.
func (r *Record) Resolve(update func(*Info)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	update(&r.info)
}

// Info is what is known of the connection.
func (r *Record) Info() Info {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.info
}

// Established counts the connection as opened: both sides are connected.
func (r *Record) Established() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.established {
		return
	}
	r.established = true
	r.counters = r.recorder.counters(&r.info)
	r.counters.opened.Inc()
	r.recorder.keep(r)
}

// Close ends the record: it counts and logs, once; later calls do nothing.
func (r *Record) Close(result Result) {
	if r.closed.Swap(true) {
		return
	}
	if result.Flag == "" {
		result.Flag = FlagNone
	}
	r.recorder.forget(r)
	r.report()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.established {
		r.recorder.closedCounter(&r.info, r.counters, result.Flag).Inc()
	} else {
		r.recorder.failedCounter(&r.info, result.Flag).Inc()
	}
	r.recorder.log(r, result)
}

// Leave ends the record without an end of the connection: another agent goes on with
// it ([Recorder.Resume]), and counts and logs that.
func (r *Record) Leave() {
	if r.closed.Swap(true) {
		return
	}
	r.recorder.forget(r)
	r.report()
}

// Opened is when the record was.
func (r *Record) Opened() time.Time { return r.opened }

// report adds the bytes since the last report to the counters, so that a
// connection that stays open for days is seen while it lasts.
func (r *Record) report() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counters == nil {
		return
	}
	server, client := r.ToServer.Load(), r.ToClient.Load()
	r.counters.received.Add(float64(server - r.reportedServer))
	r.counters.sent.Add(float64(client - r.reportedClient))
	r.reportedServer, r.reportedClient = server, client
}
