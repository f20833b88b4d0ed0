package telemetry

import (
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// unknown stands for a label's value that is not known, as Istio has it.
const unknown = "unknown"

// labelNames are Istio's labels of the istio_tcp_ metrics, in its order.
var labelNames = []string{
	"reporter",
	"source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace",
	"source_principal", "source_app", "source_version", "source_cluster",
	"destination_service", "destination_service_namespace", "destination_service_name",
	"destination_workload", "destination_canonical_service", "destination_canonical_revision", "destination_workload_namespace",
	"destination_principal", "destination_app", "destination_version", "destination_cluster",
	"request_protocol", "response_flags", "connection_security_policy",
	"source_region", "source_zone", "destination_region", "destination_zone",
}

// labelKey is what the labels depend on; connections with equal keys share
// their counters. Pointers are compared: a replaced workload is another key.
type labelKey struct {
	direction           Direction
	source, destination *mesh.Workload
	service             *mesh.Service
	sourceID            mesh.Identity
	destinationID       mesh.Identity
	mutualTLS           bool
	flag                Flag
}

func keyOf(i *Info, flag Flag) labelKey {
	return labelKey{
		direction: i.Direction, source: i.Source, destination: i.Destination, service: i.Service,
		sourceID: i.SourceIdentity, destinationID: i.DestinationIdentity, mutualTLS: i.MutualTLS, flag: flag,
	}
}

func orUnknown(s string) string {
	if s == "" {
		return unknown
	}
	return s
}

func workloadLabels(w *mesh.Workload, id mesh.Identity) []string {
	if w == nil {
		return []string{unknown, unknown, unknown, unknown, orUnknown(id.String()), unknown, unknown, unknown}
	}
	return []string{
		orUnknown(w.WorkloadName), orUnknown(w.CanonicalName), orUnknown(w.CanonicalRevision), orUnknown(w.Namespace),
		orUnknown(id.String()), orUnknown(w.CanonicalName), orUnknown(w.CanonicalRevision), orUnknown(w.Cluster),
	}
}

// values are the labels' values in the order of labelNames.
func (k labelKey) values() []string {
	service := []string{unknown, unknown, unknown}
	if s := k.service; s != nil {
		service = []string{orUnknown(s.Key.Hostname), orUnknown(s.Key.Namespace), orUnknown(s.Name)}
	}
	security := unknown
	if k.mutualTLS {
		security = "mutual_tls"
	}
	values := append([]string{k.direction.reporter()}, workloadLabels(k.source, k.sourceID)...)
	values = append(values, service...)
	values = append(values, workloadLabels(k.destination, k.destinationID)...)
	values = append(values, "tcp", string(k.flag), security)
	return append(values, k.localities()...)
}

// localities are empty, which is to say absent, where neither peer is known.
func (k labelKey) localities() []string {
	if k.source == nil && k.destination == nil {
		return []string{"", "", "", ""}
	}
	of := func(w *mesh.Workload) (region, zone string) {
		if w == nil {
			return unknown, unknown
		}
		return orUnknown(w.Locality.Region), orUnknown(w.Locality.Zone)
	}
	sourceRegion, sourceZone := of(k.source)
	destinationRegion, destinationZone := of(k.destination)
	return []string{sourceRegion, sourceZone, destinationRegion, destinationZone}
}
