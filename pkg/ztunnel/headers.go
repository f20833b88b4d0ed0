package ztunnel

import (
	"crypto/rand"
	"encoding/hex"

	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// baggageOf says who we are to the other side.
func baggageOf(w *mesh.Workload) string {
	if w == nil {
		return ""
	}
	return hbone.Baggage{
		Cluster: w.Cluster, Namespace: w.Namespace, WorkloadType: w.WorkloadType, WorkloadName: w.WorkloadName,
		ServiceName: w.CanonicalName, ServiceVersion: w.CanonicalRevision, Region: w.Locality.Region, Zone: w.Locality.Zone,
	}.String()
}

// traceParent is a new one (W3C Trace Context), not sampled.
func traceParent() string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails
	return "00-" + hex.EncodeToString(b[:16]) + "-" + hex.EncodeToString(b[16:]) + "-00"
}
