package informer

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// The groups of the kinds that come with definitions of their own.
const (
	groupNetworking = "networking.istio.io"
	groupSecurity   = "security.istio.io"
	groupTelemetry  = "telemetry.istio.io"
	groupGateway    = "gateway.networking.k8s.io"
)

// extension is a kind whose definition may be installed, or not yet.
type extension struct {
	group, kind, resource string
	store                 *store

	// changed is told that its definition came, changed or went. It has room for one.
	changed chan struct{}
	// installed is whether the definition is there; the informer's mu guards it.
	installed bool
}

func (e *extension) definition() string { return e.resource + "." + e.group }

func (i *Informer) addExtensions() {
	extend(i, groupNetworking, "ServiceEntry", "serviceentries", func(o *source.Objects) *[]*networkingv1.ServiceEntry { return &o.ServiceEntries })
	extend(i, groupNetworking, "WorkloadEntry", "workloadentries", func(o *source.Objects) *[]*networkingv1.WorkloadEntry { return &o.WorkloadEntries })
	extend(i, groupNetworking, "VirtualService", "virtualservices", func(o *source.Objects) *[]*networkingv1.VirtualService { return &o.VirtualServices })
	extend(i, groupNetworking, "DestinationRule", "destinationrules", func(o *source.Objects) *[]*networkingv1.DestinationRule { return &o.DestinationRules })
	extend(i, groupSecurity, "PeerAuthentication", "peerauthentications", func(o *source.Objects) *[]*securityv1.PeerAuthentication { return &o.PeerAuthentications })
	extend(i, groupSecurity, "AuthorizationPolicy", "authorizationpolicies", func(o *source.Objects) *[]*securityv1.AuthorizationPolicy { return &o.AuthorizationPolicies })
	extend(i, groupTelemetry, "Telemetry", "telemetries", func(o *source.Objects) *[]*telemetryv1.Telemetry { return &o.Telemetries })
	extend(i, groupGateway, "Gateway", "gateways", func(o *source.Objects) *[]*gatewayv1.Gateway { return &o.Gateways })
	extend(i, groupGateway, "HTTPRoute", "httproutes", func(o *source.Objects) *[]*gatewayv1.HTTPRoute { return &o.HTTPRoutes })
	extend(i, groupGateway, "GRPCRoute", "grpcroutes", func(o *source.Objects) *[]*gatewayv1.GRPCRoute { return &o.GRPCRoutes })
	extend(i, groupGateway, "TCPRoute", "tcproutes", func(o *source.Objects) *[]*gatewayv1.TCPRoute { return &o.TCPRoutes })
	extend(i, groupGateway, "TLSRoute", "tlsroutes", func(o *source.Objects) *[]*gatewayv1.TLSRoute { return &o.TLSRoutes })
	extend(i, groupGateway, "ReferenceGrant", "referencegrants", func(o *source.Objects) *[]*gatewayv1.ReferenceGrant { return &o.ReferenceGrants })
	// What is not served and protects something is followed for what it says: nobody
	// may rely on it in vain.
	i.extend(groupSecurity, "RequestAuthentication", "requestauthentications", nil)
}

func extend[T object](i *Informer, group, kindName, resource string, field func(*source.Objects) *[]T) {
	k := &kindOf[T]{field: field, within: func(o T) string { return o.GetNamespace() }}
	i.kinds = append(i.kinds, k)
	i.extend(group, kindName, resource, k)
}

func (i *Informer) extend(group, kindName, resource string, k kind) {
	e := &extension{group: group, kind: kindName, resource: resource, changed: make(chan struct{}, 1)}
	e.store = i.newStore(e.definition(), k, text(group, kindName))
	i.extensions[e.definition()] = e
}

// statusRead are the parts of a status that are read: where others say something of an
// object, as an address that was given to it.
var statusRead = map[string][]string{"Gateway": {"addresses"}, "WorkloadEntry": {"conditions"}}

// text reads objects as the text that a file would have.
func text(group, kindName string) func(metav1.Object) *item {
	return func(sent metav1.Object) *item {
		ref := source.Ref{Group: group, Kind: kindName, Namespace: sent.GetNamespace(), Name: sent.GetName()}
		written, err := written(sent, kindName)
		if err != nil {
			written = nil // it is read as nothing, which is wrong
		}
		return &item{reading: source.Read(ref, written), sum: sha256.Sum256(written)}
	}
}

// written is what people, and who acts for them, wrote of an object.
func written(sent metav1.Object, kindName string) ([]byte, error) {
	switch o := sent.(type) {
	case *corev1.ConfigMap:
		return json.Marshal(&corev1.ConfigMap{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: kindName},
			ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name}, Data: o.Data,
		})
	case *unstructured.Unstructured:
		content := make(map[string]any, len(o.Object))
		for name, value := range o.Object {
			content[name] = value
		}
		m := head(metav1.ObjectMeta{
			Name: o.GetName(), Namespace: o.GetNamespace(), UID: o.GetUID(), Labels: o.GetLabels(), Annotations: o.GetAnnotations(),
			CreationTimestamp: o.GetCreationTimestamp(), DeletionTimestamp: o.GetDeletionTimestamp(), OwnerReferences: o.GetOwnerReferences(),
		})
		m.Generation = o.GetGeneration() // statuses say which they are of
		content["metadata"] = m
		delete(content, "status")
		status := map[string]any{}
		for _, part := range statusRead[kindName] {
			if value, found, err := unstructured.NestedFieldNoCopy(o.Object, "status", part); err == nil && found {
				status[part] = value
			}
		}
		if len(status) > 0 {
			content["status"] = status
		}
		return json.Marshal(content)
	}
	return nil, fmt.Errorf("a %T is no object that can be read", sent)
}
