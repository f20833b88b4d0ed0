// Package deploy makes the objects that run a waypoint: what a Gateway of the class
// istio-waypoint asks for. It is pure; who runs them is Kubernetes, or the lab.
//
// For cmd/control-plane and tests.
package deploy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/rootcert"
)

// Class is the GatewayClass of waypoints.
const Class = "istio-waypoint"

// Labels and annotations, of Istio's and the Gateway API's names, and ours.
const (
	groupGateway      = "gateway.networking.k8s.io"
	labelGatewayName  = "gateway.networking.k8s.io/gateway-name"
	labelGatewayClass = "gateway.networking.k8s.io/gateway-class-name"
	LabelManaged      = "gateway.istio.io/managed"
	ManagedWaypoint   = "istio.io-mesh-controller"
	labelMode         = "istio.io/dataplane-mode"
	labelInject       = "sidecar.istio.io/inject"
	nameOverride      = "gateway.istio.io/name-override"
	accountOverride   = "gateway.istio.io/service-account"
	serviceType       = "networking.istio.io/service-type"
	trafficDistr      = "networking.istio.io/traffic-distribution"
	// annotationEngine says which proxy runs the waypoint: "fairlead" or "envoy".
	annotationEngine = "fairlead.dev/waypoint-engine"
	// annotationReplicas is how many pods there are; one, where it is not set.
	annotationReplicas = "fairlead.dev/waypoint-replicas"
)

// Where a waypoint's pod finds what it needs to prove who it is.
const (
	Directory = "/run/fairlead"
	tokenFile = Directory + "/tokens/istio-token"
	rootFile  = Directory + "/istio/" + rootcert.Key
	socket    = Directory + "/sds/socket"
	bootstrap = Directory + "/sds/envoy.json"
)

// The ports of a waypoint's pod.
const (
	portHBONE, portStatus, portMetrics = 15008, 15021, 15020
	// drainSeconds is how long connections may go on when a pod ends.
	drainSeconds = 30
	// lameDuckSeconds is how long an Envoy that is to end still serves.
	lameDuckSeconds = 8
)

// Options is what Gateways do not say.
type Options struct {
	// XDSAddress is where waypoints reach the control plane, host:port, ServerName the
	// name in its certificate.
	XDSAddress, ServerName string
	ClusterID, TrustDomain string
	Network                string
	// Statistics are those that waypoints show beside the usual: the mesh's
	// defaultConfig.proxyStatsMatcher. Nil is none.
	Statistics *meshv1alpha1.ProxyConfig_ProxyStatsMatcher
	// Image and EnvoyImage are what pods run, and PullPolicy when they are pulled; empty:
	// as Kubernetes has it.
	Image, EnvoyImage string
	PullPolicy        corev1.PullPolicy
	// ClassParameters are the data of the ConfigMap that is for all Gateways of the class;
	// nil: there is none.
	ClassParameters map[string]string
	// Parameters are the data of a ConfigMap; false: it is not there. nil: no ConfigMaps
	// can be read.
	Parameters func(namespace, name string) (map[string]string, bool)
}

// Objects are those of all waypoints that Gateways ask for, and what was wrong with
// the others.
func Objects(gateways []*gatewayv1.Gateway, o Options) (out []runtime.Object, problems map[string]error) {
	problems = map[string]error{}
	taken := map[string]string{} // Gateways by namespace and name of their objects
	for _, g := range gateways {
		if !managed(g) {
			continue
		}
		made, err := waypoint(g, o)
		key := g.Namespace + "/" + name(g)
		if other := taken[key]; err == nil && other != "" {
			err = fmt.Errorf("the Gateway %s has objects of the name %s already", other, name(g))
		}
		if err != nil {
			problems[g.Namespace+"/"+g.Name] = err
			continue
		}
		taken[key] = g.Name
		out = append(out, made...)
	}
	return out, problems
}

// managed tells whether a Gateway asks for pods. One that is going does not, and one
// that says by what name it is reached has them from somewhere else.
func managed(g *gatewayv1.Gateway) bool {
	if string(g.Spec.GatewayClassName) != Class || g.DeletionTimestamp != nil {
		return false
	}
	return !slices.ContainsFunc(g.Spec.Addresses, func(a gatewayv1.GatewaySpecAddress) bool {
		return a.Value != "" && a.Type != nil && *a.Type == gatewayv1.HostnameAddressType
	})
}

// Account is the service account that a Gateway's pods run as.
func Account(g *gatewayv1.Gateway) string {
	if name := g.Annotations[accountOverride]; name != "" {
		return name
	}
	return name(g)
}

func name(g *gatewayv1.Gateway) string {
	if n := g.Annotations[nameOverride]; n != "" {
		return n
	}
	return g.Name
}

// checkNames refuses names that the API server would refuse: who writes Gateways has no
// other check between them and the objects' files.
func checkNames(g *gatewayv1.Gateway) error {
	for _, c := range []struct {
		what, name string
		wrong      []string
	}{
		{"the waypoint's name (metadata.name, or the annotation " + nameOverride + ")", name(g), validation.IsDNS1035Label(name(g))},
		{"the service account (the annotation " + accountOverride + ")", Account(g), validation.IsDNS1123Subdomain(Account(g))},
		{"the namespace", g.Namespace, validation.IsDNS1123Label(g.Namespace)},
	} {
		if len(c.wrong) > 0 {
			return fmt.Errorf("%s cannot be %q: %s", c.what, c.name, strings.Join(c.wrong, "; "))
		}
	}
	return nil
}

// waypoint makes a Gateway's objects, and lays what its class and its own parameters
// say over them.
func waypoint(g *gatewayv1.Gateway, o Options) ([]runtime.Object, error) {
	if err := checkNames(g); err != nil {
		return nil, err
	}
	replicas, err := replicas(g)
	if err != nil {
		return nil, err
	}
	pod, err := template(g, o)
	if err != nil {
		return nil, err
	}
	overlays, err := o.overlays(g)
	if err != nil {
		return nil, err
	}
	if overlays.has(keyAutoscaler) {
		replicas = nil // there is one who says how many
	}
	var out []runtime.Object
	for _, part := range []struct {
		key      string
		object   metav1.Object
		optional bool
	}{
		{keyAccount, account(g), false}, {keyDeployment, deployment(g, replicas, pod), false}, {keyService, service(g), false},
		{keyAutoscaler, autoscaler(g), true}, {keyDisruption, disruptionBudget(g), true},
	} {
		if part.optional && !overlays.has(part.key) {
			continue
		}
		object, err := overlays.over(part.key, part.object)
		if err != nil {
			return nil, err
		}
		out = append(out, object)
	}
	return out, nil
}

// replicas is how many pods the Gateway asks for; nil: it does not say, so that whoever
// scales the Deployment is not undone.
func replicas(g *gatewayv1.Gateway) (*int32, error) {
	v := g.Annotations[annotationReplicas]
	if v == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %q is not a number of pods", annotationReplicas, v)
	}
	return ptr(int32(n)), nil
}

func ptr[T any](v T) *T { return &v }
