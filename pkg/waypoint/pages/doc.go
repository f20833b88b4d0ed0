// Package pages is a waypoint's admin listener in the shape of Envoy's, so that
// `istioctl proxy-config` and the habits of operators work: what was received, what is
// in effect, how it goes, and levers for the moment. What changes something needs POST.
// cmd/waypoint serves it on loopback.
package pages
