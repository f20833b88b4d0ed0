// Package informer follows the objects of a Kubernetes API server and publishes their
// states as package source does those of a directory: one immutable state after
// another, in which the kinds of which nothing changed keep their slices.
//
// Core kinds come as protobuf and are stripped to what translation reads; nodes and
// definitions come as metadata alone. Istio's and the Gateway API's kinds come as JSON
// and get the checks that files get: a wrong object does not take the place of its last
// good form, and a wrong security object without one is refused, which denies what it
// selects. Neither keeps a state from being published. Kinds whose definitions are not
// installed have no objects; they are followed from the moment that they are.
//
// What an account must be allowed to do for it, each with get, list and watch: in all
// namespaces pods, services (core) and endpointslices (discovery.k8s.io); namespaces
// and nodes (core); customresourcedefinitions (apiextensions.k8s.io); serviceentries,
// workloadentries, virtualservices and destinationrules (networking.istio.io);
// authorizationpolicies, peerauthentications and requestauthentications
// (security.istio.io); telemetries (telemetry.istio.io); gateways, httproutes,
// grpcroutes, tcproutes, tlsroutes and referencegrants (gateway.networking.k8s.io). In
// the namespace istio-system configmaps, of which it reads the one named istio.
//
// For cmd/control-plane and tests.
package informer
