package main

import (
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/pages"
)

// node is the bootstrap that the admin page shows where there is no file: who the
// waypoint is.
func node(c config) *bootstrapv3.Bootstrap {
	pod := c.pod()
	n := &corev3.Node{
		Id: pod.NodeID(), Cluster: c.gateway + "." + c.podNamespace,
		UserAgentName: "fairlead", UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: telemetry.Version},
	}
	if m, err := structpb.NewStruct(pod.Metadata()); err == nil {
		n.Metadata = m
	}
	return &bootstrapv3.Bootstrap{Node: n}
}

// shown are the certificates for the admin page, by the names that configuration uses.
func shown(all []identity.Status) (out []pages.Secret) {
	for _, s := range all {
		own := pages.Secret{Name: secretSelf, Waiting: s.Cert == nil}
		if s.Cert != nil {
			own.Chain = s.Cert.Chain
		}
		out = append(out, own)
		if len(s.Roots) > 0 {
			out = append(out, pages.Secret{Name: secretRoots, Roots: s.Roots})
		}
	}
	return out
}
