package record

import (
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

const unknown = "unknown"

// labelNames are those that requests and connections have in common, with Istio's
// names.
var labelNames = []string{
	"reporter",
	"source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace",
	"source_principal", "source_app", "source_version", "source_cluster",
	"destination_service", "destination_service_namespace", "destination_service_name",
	"destination_workload", "destination_canonical_service", "destination_canonical_revision", "destination_workload_namespace",
	"destination_principal", "destination_app", "destination_version", "destination_cluster",
}

func labelValues(i *streaminfo.Info) []string {
	host, namespace, name := service(i)
	out := append([]string{"waypoint"}, workload(i.Source, i.PeerURISAN)...)
	out = append(out, known(host), known(namespace), known(name))
	return append(out, workload(i.Destination, i.UpstreamURISAN)...)
}

func workload(w *streaminfo.Workload, principal string) []string {
	if w == nil {
		w = &streaminfo.Workload{}
	}
	return []string{
		known(w.Name), known(w.CanonicalService), known(w.CanonicalRevision), known(w.Namespace), known(principal),
		known(w.App), known(w.Version), known(w.Cluster),
	}
}

func known(s string) string {
	if s == "" {
		return unknown
	}
	return strings.Clone(s)
}

func security(mutual bool) string {
	if mutual {
		return "mutual_tls"
	}
	return unknown
}

// service is what the cluster's metadata says of the service it stands for, in the
// form of istiod or in that of upstream Envoy.
func service(i *streaminfo.Info) (host, namespace, name string) {
	if m := i.ClusterMetadata["mesh"]; m != nil {
		return text(m["host"]), text(m["namespace"]), text(m["name"])
	}
	services, _ := i.ClusterMetadata["istio"]["services"].([]any)
	if len(services) == 0 {
		return "", "", ""
	}
	first, _ := services[0].(map[string]any)
	return text(first["host"]), text(first["namespace"]), text(first["name"])
}

func text(v any) string {
	s, _ := v.(string)
	return s
}
