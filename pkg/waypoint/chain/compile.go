package chain

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	xdsudpa "github.com/cncf/xds/go/udpa/type/v1"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	snidfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_dynamic_forward_proxy/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/rbac"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/strict"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/tcpproxy"
)

// Dependencies are what chains are made of.
type Dependencies struct {
	HTTP hcm.Dependencies
	TCP  tcpproxy.Dependencies
	// Loggers compiles the access loggers of a TCP proxy and adds what counts.
	Loggers func([]*accesslogv3.AccessLog) ([]hcm.Recorder, error)
	// Unknown is told of fields that this build does not know and passes over, as
	// Envoy does; those of policies are errors.
	Unknown func(error)
}

// work of Istio's that is done elsewhere here: their filters are passed over.
var known = []string{
	"envoy.tcp.metadataexchange.config.MetadataExchange", // peers are known from discovery
	"stats.PluginConfig", // metrics are the recorder's
}

// Compile makes a chain. An error names the filter and its field.
func Compile(c *listenerv3.FilterChain, d Dependencies) (*Chain, error) {
	out := &Chain{Name: c.GetName()}
	for i, f := range c.GetFilters() {
		at := func(err error) error { return fmt.Errorf("filters[%d] %s: %w", i, f.GetName(), err) }
		if out.http != nil || out.tcp != nil {
			return nil, at(errors.New("stands behind the chain's last filter"))
		}
		if err := out.add(f.GetTypedConfig(), d); err != nil {
			return nil, at(err)
		}
	}
	if out.http == nil && out.tcp == nil {
		return nil, errors.New("filters: neither an HTTP connection manager nor a TCP proxy")
	}
	return out, nil
}

func (c *Chain) add(config *anypb.Any, d Dependencies) error {
	if name := TypeName(config); slices.Contains(known, name) {
		return nil
	}
	m, err := config.UnmarshalNew()
	if err != nil {
		return fmt.Errorf("unknown filter %s", config.GetTypeUrl())
	}
	if err := strict.Check(m); err != nil && d.Unknown != nil {
		d.Unknown(err)
	}
	switch f := m.(type) {
	case *hcmv3.HttpConnectionManager:
		c.http, err = hcm.Compile(f, d.HTTP)
	case *tcpv3.TcpProxy:
		t := d.TCP
		if t.Recorders, err = d.Loggers(f.GetAccessLog()); err != nil {
			return fmt.Errorf("access_log: %w", err)
		}
		c.tcp, err = tcpproxy.Compile(f, t)
	case *rbacv3.RBAC:
		var policy *rbac.Engine
		if policy, err = rbac.CompileNetwork(f); err == nil {
			c.network = append(c.network, gate{policy})
		}
	case *snidfpv3.FilterConfig:
		c.network = append(c.network, serverName{f.GetPortValue()})
	case *statev3.Config:
		var s *filter.State
		if s, err = filter.CompileState(f.GetOnNewConnection()); err == nil {
			c.network = append(c.network, setState{s})
		}
	default:
		return fmt.Errorf("network filter %s is not supported", config.GetTypeUrl())
	}
	return err
}

// TypeName is the type of a filter's configuration, also in a TypedStruct.
func TypeName(config *anypb.Any) string {
	name := string(config.MessageName())
	var ts xdsudpa.TypedStruct
	if config.MessageIs(&ts) && config.UnmarshalTo(&ts) == nil {
		any := anypb.Any{TypeUrl: ts.GetTypeUrl()}
		return string(any.MessageName())
	}
	return name
}

// gate decides by role-based access control.
type gate struct{ policy *rbac.Engine }

var _ Gate = gate{}

func (g gate) Connection(c *streaminfo.Connection) error { return g.Allow(c) }

func (g gate) Allow(c *streaminfo.Connection) error {
	if allowed, policy := g.policy.Connection(c); !allowed {
		return &DeniedError{Policy: policy}
	}
	return nil
}

// DeniedError is a connection that a policy refuses.
type DeniedError struct {
	// Policy is the one that decided, or "": none allowed it.
	Policy string
}

// details are what the access log says of it, in Envoy's words.
func (e *DeniedError) details() string {
	policy := e.Policy
	if policy == "" {
		policy = "none"
	}
	return "rbac_access_denied_matched_policy[" + policy + "]"
}

func (e *DeniedError) Error() string {
	if e.Policy == "" {
		return "denied: allow policies exist, but none allowed"
	}
	return "denied by policy " + e.Policy
}

// setState puts values into the connection's filter state.
type setState struct{ s *filter.State }

func (s setState) Connection(c *streaminfo.Connection) error {
	s.s.Set(&streaminfo.Info{Connection: c, Duration: c.Waited})
	return nil
}

// serverName forwards to the port of the host that a TLS hello names, 443 if it is zero
// (sni_dynamic_forward_proxy). The cluster looks the name up.
type serverName struct{ port uint32 }

func (s serverName) Connection(c *streaminfo.Connection) error {
	if c.ServerName == "" {
		return errors.New("the client's first bytes name no server")
	}
	port := s.port
	if port == 0 {
		port = 443
	}
	c.ForwardTo = net.JoinHostPort(c.ServerName, strconv.FormatUint(uint64(port), 10))
	return nil
}
