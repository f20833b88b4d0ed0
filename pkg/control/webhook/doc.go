// Package webhook refuses objects that are wrong, before the Kubernetes API stores them,
// with the sentences that package source has for them: the field, what is wrong and what
// was meant. It also keeps the webhook's configuration: the certificates by which the API
// server knows the webhook, and what happens when there is none to answer.
//
// Of Istio's kinds what is wrong is refused. Of the Gateway API's it is a warning: other
// controllers may serve the same object, and that API has conditions for it. An unknown
// field is a warning as well: the API server has checked fields by the definitions that
// are installed, which may be newer than this program.
//
// For cmd/control-plane.
package webhook
