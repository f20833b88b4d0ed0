package record

import (
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// Label values that stand for what is not known, as Istio has them: a caller without
// a revision runs the latest.
const (
	unknown = "unknown"
	latest  = "latest"
)

// labelNames are those that requests and connections have in common, with Istio's
// names.
var labelNames = []string{
	"reporter",
	"source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace",
	"source_principal", "source_app", "source_version", "source_cluster",
	"destination_service", "destination_service_namespace", "destination_service_name",
	"destination_workload", "destination_canonical_service", "destination_canonical_revision", "destination_workload_namespace",
	"destination_principal", "destination_app", "destination_version", "destination_cluster",
	"response_flags", "connection_security_policy", "request_protocol",
}

// requestLabelNames are those of requests.
var requestLabelNames = append(append([]string{}, labelNames...), "response_code", "grpc_response_status")

// Where labels stand that are not told apart once there are too many sets.
const (
	sourceFrom, sourceTo           = 1, 9
	destinationFrom, destinationTo = 12, 20
	flagsAt                        = 20
	codeAt                         = 23
)

// service is what a cluster stands for.
type service struct{ host, namespace, name string }

// labels are the values of labelNames for an exchange or a connection.
func labels(i *streaminfo.Info, s service, protocol string) []string {
	out := make([]string, 0, len(requestLabelNames))
	out = append(out, "waypoint")
	out = append(out, source(i)...)
	out = append(out, known(s.host), known(s.namespace), known(s.name))
	out = append(out, destination(i)...)
	return append(out, i.Flags.String(), security(i), protocol)
}

// source are the labels of who called: the principal is the one that was proven, and
// its namespace counts before that of discovery.
func source(i *streaminfo.Info) []string {
	w := i.Source
	if w == nil {
		w = &streaminfo.Workload{}
	}
	revision := w.CanonicalRevision
	if revision == "" {
		revision = latest
	}
	namespace := namespaceOf(i.PeerURISAN)
	if namespace == "" {
		namespace = w.Namespace
	}
	return workload(w, revision, namespace, i.PeerURISAN)
}

// destination are the labels of the endpoint that was chosen, if one was. Its
// principal is the one that was proven, or else the one that had to be.
func destination(i *streaminfo.Info) []string {
	w := i.Destination
	if w == nil {
		w = &streaminfo.Workload{}
	}
	principal := i.UpstreamURISAN
	if principal == "" {
		principal = w.Principal
	}
	return workload(w, w.CanonicalRevision, w.Namespace, principal)
}

func workload(w *streaminfo.Workload, revision, namespace, principal string) []string {
	return []string{
		known(w.Name), known(w.CanonicalService), known(revision), known(namespace), known(principal),
		known(w.App), known(w.Version), known(w.Cluster),
	}
}

// namespaceOf is the namespace in a SPIFFE id of Kubernetes' form, or "".
func namespaceOf(id string) string {
	_, rest, ok := strings.Cut(id, "/ns/")
	if !ok {
		return ""
	}
	namespace, _, _ := strings.Cut(rest, "/")
	return namespace
}

func known(s string) string {
	if s == "" {
		return unknown
	}
	return strings.ToValidUTF8(strings.Clone(s), "")
}

func mutual(i *streaminfo.Info) bool { return i.TLS != nil && len(i.TLS.PeerCertificates) > 0 }

func security(i *streaminfo.Info) string {
	if mutual(i) {
		return "mutual_tls"
	}
	return "none"
}

// serviceOf is what the exchange's cluster stands for; where none was chosen, what
// the filter chain does, whose name its own cluster has.
func (f *Factory) serviceOf(i *streaminfo.Info) service {
	if s, ok := inMetadata(i.ClusterMetadata); ok {
		return s
	}
	if f.o.Cluster != nil {
		if s, ok := inMetadata(f.o.Cluster(i.Chain)); ok {
			return s
		}
	}
	return byChain(i.Chain)
}

// inMetadata is what a cluster's metadata says, in the form of istiod or in that of
// upstream Envoy.
func inMetadata(m streaminfo.Metadata) (service, bool) {
	of := m["mesh"]
	if of == nil {
		services, _ := m["istio"]["services"].([]any)
		if len(services) == 0 {
			return service{}, false
		}
		of, _ = services[0].(map[string]any)
	}
	s := service{text(of["host"]), text(of["namespace"]), text(of["name"])}
	if s.name == "" {
		s.name, _, _ = strings.Cut(s.host, ".")
	}
	return s, s.host != ""
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// byChain reads the host out of a chain's name (inbound-vip|80|http|host). Names of
// Kubernetes services hold their namespaces.
func byChain(name string) service {
	parts := strings.Split(name, "|")
	if len(parts) < 4 || parts[0] != "inbound-vip" {
		return service{}
	}
	host := parts[3]
	if labels := strings.SplitN(host, ".", 4); len(labels) == 4 && labels[2] == "svc" {
		return service{host, labels[1], labels[0]}
	}
	return service{host: host, name: host}
}
