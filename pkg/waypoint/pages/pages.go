package pages

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/fairlead-mesh/fairlead/pkg/level"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
)

// Options are those of [New].
type Options struct {
	Engine   *waypoint.Engine // must be non-nil
	Clusters *cluster.Manager // must be non-nil
	// Bootstrap is what the process started with: the node, and a file's resources. It
	// must be non-nil.
	Bootstrap *bootstrapv3.Bootstrap
	// Included tells which statistics of clusters there are, at the port for metrics as
	// well; nil: all at the admin port and none at the other. There are dozens for each
	// service of the mesh.
	Included func(name string) bool
	// Secrets are the certificates that there are, without keys; or nil.
	Secrets func() []Secret
	// Pending is what readiness waits for. It must be non-nil.
	Pending func() []string
	// SetHealth makes the waypoint unready until it is healthy again. It must be
	// non-nil.
	SetHealth func(healthy bool)
	// Level is what /logging shows and sets. It must be non-nil.
	Level *level.Levels
	// Registry is where the metrics of /stats/prometheus are. It must be non-nil.
	Registry *prometheus.Registry
	Version  string
	Logger   *slog.Logger // must be non-nil
}

// Pages are the handlers.
type Pages struct {
	o       Options
	initial slog.Level
	started time.Time
}

// New also registers Envoy's statistics of listeners, connection managers and the
// server with the registry.
func New(o Options) (*Pages, error) {
	if o.Engine == nil || o.Clusters == nil || o.Bootstrap == nil || o.Pending == nil || o.SetHealth == nil || o.Level == nil || o.Registry == nil || o.Logger == nil {
		return nil, errors.New("pages: Engine, Clusters, Bootstrap, Pending, SetHealth, Level, Registry and Logger must be set")
	}
	p := &Pages{o: o, initial: o.Level.Level(), started: time.Now()}
	return p, o.Registry.Register(collector{stats: p.metrics})
}

// Handlers are the pages by path.
func (p *Pages) Handlers() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/config_dump": p.configDump, "/clusters": p.clusters, "/listeners": p.listeners, "/certs": p.certs,
		"/stats": p.stats, "/stats/prometheus": p.prometheus, "/memory": p.memory, "/server_info": p.serverInfo, "/ready": p.ready,
		"/logging":          p.logging,
		"/drain_listeners":  post(p.drain),
		"/healthcheck/fail": post(func(w http.ResponseWriter, _ *http.Request) { p.health(w, false) }),
		"/healthcheck/ok":   post(func(w http.ResponseWriter, _ *http.Request) { p.health(w, true) }),
	}
}

// post refuses what changes something and was asked for with another method.
func post(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, r.URL.Path+" needs POST", http.StatusMethodNotAllowed)
			return
		}
		h(w, r)
	}
}

func (p *Pages) drain(w http.ResponseWriter, _ *http.Request) {
	p.o.Logger.Info("listeners drain: it was asked for on the admin page")
	p.o.SetHealth(false)
	p.o.Engine.BeginDrain()
	ok(w)
}

func (p *Pages) health(w http.ResponseWriter, healthy bool) {
	p.o.Logger.Info("health was set on the admin page", "healthy", healthy)
	p.o.SetHealth(healthy)
	ok(w)
}

func ok(w http.ResponseWriter) { _, _ = w.Write([]byte("OK\n")) } // the reader may have gone

// state is the server's, in Envoy's words.
func (p *Pages) state() adminv3.ServerInfo_State {
	switch {
	case p.o.Engine.Draining():
		return adminv3.ServerInfo_DRAINING
	case len(p.o.Pending()) > 0:
		return adminv3.ServerInfo_INITIALIZING
	}
	return adminv3.ServerInfo_LIVE
}

func (p *Pages) ready(w http.ResponseWriter, _ *http.Request) {
	s := p.state()
	if s != adminv3.ServerInfo_LIVE {
		http.Error(w, s.String(), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte(s.String() + "\n"))
}

func (p *Pages) serverInfo(w http.ResponseWriter, _ *http.Request) {
	up := time.Since(p.started)
	all := marshal
	all.EmitDefaultValues = true // LIVE is zero
	text, err := all.Marshal(&adminv3.ServerInfo{
		Version: p.o.Version, State: p.state(), HotRestartVersion: "disabled", UptimeCurrentEpoch: seconds(up), UptimeAllEpochs: seconds(up), Node: p.o.Bootstrap.GetNode(),
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, text)
}

// message writes a message as Envoy does: with the names of its fields.
func message(w http.ResponseWriter, m proto.Message) {
	text, err := marshal.Marshal(m)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, text)
}

var marshal = protojson.MarshalOptions{UseProtoNames: true, Multiline: true, Indent: " ", Resolver: types{protoregistry.GlobalTypes}}

func write(w http.ResponseWriter, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n')) // the reader may have gone
}
