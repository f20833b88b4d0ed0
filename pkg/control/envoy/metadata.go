package envoy

import (
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// The metadata of clusters and endpoints that upstream's types can read, one key
// for each word: Istio's is packed in one string. The key metadataOriginate names
// the cluster whose TLS context lets the endpoint's identity answer.
const (
	metadataNamespace = "mesh"
	metadataOriginate = "originate"
	metadataIstio     = "istio"
)

func (g *generator) metadataNamespace() string {
	if g.o.IstioExtensions {
		return metadataIstio
	}
	return metadataNamespace
}

func (g *generator) metadata(of map[string]map[string]any) *corev3.Metadata {
	out := &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{}}
	for name, fields := range of {
		for k, v := range fields {
			if v == "" {
				delete(fields, k)
			}
		}
		s, err := structpb.NewStruct(fields)
		g.fail(err)
		out.FilterMetadata[name] = s
	}
	return out
}

// clusterMetadata is what a cluster is of.
func (g *generator) clusterMetadata(s *model.Service, subset string, rule *networkingv1.DestinationRule) *corev3.Metadata {
	if !g.o.IstioExtensions {
		return g.metadata(map[string]map[string]any{metadataNamespace: {"host": s.Hostname, "name": serviceName(s), "namespace": s.Namespace, "subset": subset}})
	}
	fields := map[string]any{
		"services": []any{map[string]any{"host": s.Hostname, "name": serviceName(s), "namespace": s.Namespace}}, "subset": subset}
	if rule != nil {
		fields["config"] = fmt.Sprintf("/apis/networking.istio.io/v1/namespaces/%s/destination-rule/%s", rule.Namespace, rule.Name)
	}
	return g.metadata(map[string]map[string]any{metadataIstio: fields})
}

// serviceName is a service's short name: a Kubernetes service's own, else the host.
func serviceName(s *model.Service) string {
	if s.Kube != nil {
		return s.Name
	}
	return s.Hostname
}

// endpointMetadata is who an endpoint is and, of one behind a tunnel, where.
func (g *generator) endpointMetadata(s *model.Service, e *model.Endpoint, where string) *corev3.Metadata {
	all := map[string]map[string]any{}
	if e.Tunnel {
		all[originalDst] = map[string]any{originalDstKey: where}
	}
	if g.o.IstioExtensions {
		version := e.Labels["service.istio.io/canonical-revision"]
		for _, l := range []string{"app.kubernetes.io/version", "version"} {
			if version == "" {
				version = e.Labels[l]
			}
		}
		all[metadataIstio] = map[string]any{"workload": strings.Join([]string{e.Workload, e.Namespace, e.CanonicalService, version, e.Cluster}, ";")}
	} else {
		all[metadataNamespace] = g.identity(s, e)
	}
	return g.metadata(all)
}

// identityMetadata is endpointMetadata for a workload's own address, which is
// known from elsewhere.
func (g *generator) identityMetadata(e *model.Endpoint) *corev3.Metadata {
	of := g.identity(nil, e)
	return g.metadata(map[string]map[string]any{metadataNamespace: {metadataOriginate: of[metadataOriginate], "principal": of["principal"], "namespace": e.Namespace}})
}

func (g *generator) identity(s *model.Service, e *model.Endpoint) map[string]any {
	out := map[string]any{
		"workload": e.Workload, "namespace": e.Namespace, "service": e.CanonicalService, "revision": e.CanonicalRevision, "cluster": e.Cluster,
		"app": e.Labels["app"], "version": e.Labels["version"], "principal": spiffe(g.m.TrustDomain, e),
	}
	if e.Tunnel {
		out[metadataOriginate] = g.originate(s, e)
	}
	return out
}

// originate names the cluster that lets an endpoint's identity answer, and asks
// for it: that of its service account and the names that its service lists.
func (g *generator) originate(s *model.Service, e *model.Endpoint) string {
	name := "originate/" + e.Namespace + "/" + account(e)
	var names []string
	for _, td := range g.trustDomains() {
		names = append(names, spiffe(td, e))
	}
	if s != nil && len(s.SubjectAltNames) > 0 {
		name += "/" + s.Namespace + "/" + s.Hostname
		names = append(names, s.SubjectAltNames...)
	}
	g.identities[name] = names
	return name
}

func spiffe(trustDomain string, e *model.Endpoint) string {
	return "spiffe://" + trustDomain + "/ns/" + e.Namespace + "/sa/" + account(e)
}

// account is what an endpoint runs as.
func account(e *model.Endpoint) string {
	if e.ServiceAccount == "" {
		return "default"
	}
	return e.ServiceAccount
}
