// Package proxyconfig shows what a proxy's configuration dump holds, in the tables and
// the JSON of `istioctl proxy-config`: our waypoint's dump, a real Envoy's, or a file.
//
// Tables are made of the dump as JSON, so that a resource with an extension that this
// program does not know is shown too.
//
// For cmd/fairlead and tests.
package proxyconfig
