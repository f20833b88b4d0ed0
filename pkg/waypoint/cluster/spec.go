package cluster

import (
	"errors"
	"fmt"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// discovery is where a cluster's hosts come from.
type discovery uint8

const (
	static discovery = iota
	eds
	strictDNS
	logicalDNS
	// originalDst: the client's destination is the host.
	originalDst
	// internalOnly leads to an internal listener of the waypoint: encap goes on to the
	// client's destination, main_internal is what the engine itself is.
	internalOnly
	// forward resolves the request's authority (dynamic_forward_proxy).
	forward
)

// defaultConnectTimeout is Envoy's.
const defaultConnectTimeout = 5 * time.Second

// spec is a compiled cluster. It does not change.
type spec struct {
	name, edsName string
	observed      string // alt_stat_name, or the name
	discovery     discovery
	load          *endpointv3.ClusterLoadAssignment // inline, or nil
	lb            balancing
	dns           resolution
	outlier       *outlier // or nil
	limits        [2]limits
	link          *link
	metadata      streaminfo.Metadata
	// portOverride is of ORIGINAL_DST clusters, or 0.
	portOverride uint16
	cleanup      time.Duration
}

// byDestination: hosts come with requests.
func (s *spec) byDestination() bool {
	return s.discovery == originalDst || s.discovery == internalOnly || s.discovery == forward
}

func compile(c *clusterv3.Cluster) (*spec, error) {
	fail := func(field string, err error) (*spec, error) { return nil, &fieldError{c.GetName(), field, err} }
	if c.GetName() == "" {
		return fail("name", errors.New("missing"))
	}
	s := &spec{name: c.GetName(), load: c.GetLoadAssignment(), metadata: metadataOf(c.GetMetadata()), cleanup: duration(c.GetCleanupInterval(), 5*time.Second)}
	if s.observed = c.GetAltStatName(); s.observed == "" {
		s.observed = s.name
	}
	if field, err := s.discover(c); err != nil {
		return fail(field, err)
	}
	if c.GetLbSubsetConfig() != nil {
		return fail("lb_subset_config", errors.New("not supported; clusters per subset do the same"))
	}
	var field string
	var err error
	if s.lb, field, err = balancingOf(c); err != nil {
		return fail(field, err)
	}
	if s.lb.policy == provided && !s.byDestination() {
		return fail("lb_policy", errors.New("CLUSTER_PROVIDED is for ORIGINAL_DST clusters"))
	}
	if s.outlier, err = outlierOf(c.GetOutlierDetection()); err != nil {
		return fail("outlier_detection", err)
	}
	if s.limits, err = limitsOf(c.GetCircuitBreakers()); err != nil {
		return fail("circuit_breakers", err)
	}
	if s.link, field, err = linkOf(c); err != nil {
		return fail(field, err)
	}
	return s, nil
}

func (s *spec) discover(c *clusterv3.Cluster) (field string, err error) {
	if custom := c.GetClusterType(); custom != nil {
		return "cluster_type", s.custom(c, custom)
	}
	switch c.GetType() {
	case clusterv3.Cluster_STATIC:
		if internalName(s.load) != "" {
			s.discovery = internalOnly
		}
	case clusterv3.Cluster_EDS:
		s.discovery, s.edsName = eds, c.GetEdsClusterConfig().GetServiceName()
		if s.edsName == "" {
			s.edsName = s.name
		}
	case clusterv3.Cluster_STRICT_DNS, clusterv3.Cluster_LOGICAL_DNS:
		s.discovery = strictDNS
		if c.GetType() == clusterv3.Cluster_LOGICAL_DNS {
			s.discovery = logicalDNS
		}
		if s.dns, err = resolutionOf(c); err != nil {
			return "dns_lookup_family", err
		}
	case clusterv3.Cluster_ORIGINAL_DST:
		s.discovery = originalDst
		s.portOverride = uint16(c.GetOriginalDstLbConfig().GetUpstreamPortOverride().GetValue())
	default:
		return "type", fmt.Errorf("%v is not supported", c.GetType())
	}
	if s.discovery == logicalDNS && endpoints(s.load) != 1 {
		return "load_assignment", errors.New("a LOGICAL_DNS cluster has exactly one endpoint")
	}
	if s.discovery == eds && s.load != nil {
		return "load_assignment", errors.New("an EDS cluster has none")
	}
	return "", nil
}

func (s *spec) custom(c *clusterv3.Cluster, t *clusterv3.Cluster_CustomClusterType) error {
	message, err := t.GetTypedConfig().UnmarshalNew()
	if err != nil {
		return fmt.Errorf("%s: %w", t.GetName(), err)
	}
	switch m := message.(type) {
	case *dfpv3.ClusterConfig:
		if m.GetDnsCacheConfig() == nil {
			return fmt.Errorf("%s: sub_clusters_config and dns_cluster_config are not supported", t.GetName())
		}
		s.discovery = forward
		s.dns, err = familyOf(m.GetDnsCacheConfig().GetDnsLookupFamily())
		s.dns.refresh = duration(m.GetDnsCacheConfig().GetDnsRefreshRate(), time.Minute)
		return err
	default:
		return s.customDNS(c, message)
	}
}

// known are the fields that are used, or whose absence nobody notices.
var known = []protoreflect.Name{"name", "alt_stat_name", "type", "cluster_type", "eds_cluster_config", "connect_timeout", "per_connection_buffer_limit_bytes",
	"lb_policy", "load_assignment", "max_requests_per_connection", "circuit_breakers", "upstream_http_protocol_options", "common_http_protocol_options",
	"http_protocol_options", "http2_protocol_options", "typed_extension_protocol_options", "dns_refresh_rate", "dns_failure_refresh_rate", "respect_dns_ttl",
	"dns_jitter", "dns_lookup_family", "typed_dns_resolver_config", "wait_for_warm_on_init", "outlier_detection", "cleanup_interval", "ring_hash_lb_config",
	"maglev_lb_config", "original_dst_lb_config", "least_request_lb_config", "round_robin_lb_config", "common_lb_config", "transport_socket",
	"transport_socket_matches", "metadata", "upstream_connection_options", "filters", "load_balancing_policy", "protocol_selection",
	"ignore_health_on_host_removal", "track_timeout_budgets", "track_cluster_stats"}

// ignored are the set fields of a cluster that have no effect here, such as
// health_checks and preconnect_policy.
func ignored(c *clusterv3.Cluster) (fields []string) {
	c.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !slices.Contains(known, f.Name()) {
			fields = append(fields, string(f.Name()))
		}
		return true
	})
	return fields
}

// internalName is the internal listener that an inline assignment leads to, where
// its endpoints do not say where to go on to; or "".
func internalName(load *endpointv3.ClusterLoadAssignment) string {
	for _, l := range load.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			a := e.GetEndpoint().GetAddress().GetEnvoyInternalAddress()
			if a != nil && a.GetEndpointId() == "" && onward(e) == "" {
				return a.GetServerListenerName()
			}
		}
	}
	return ""
}

func endpoints(load *endpointv3.ClusterLoadAssignment) (n int) {
	for _, l := range load.GetEndpoints() {
		n += len(l.GetLbEndpoints())
	}
	return n
}

func duration(d *durationpb.Duration, unset time.Duration) time.Duration {
	if d == nil {
		return unset
	}
	return d.AsDuration()
}

func number(v *wrapperspb.UInt32Value, unset uint32) uint32 {
	if v == nil {
		return unset
	}
	return v.GetValue()
}
