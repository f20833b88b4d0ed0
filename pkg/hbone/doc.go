// Package hbone is Istio's tunnel: HTTP/2 CONNECT over mutual TLS on port 15008.
//
// A [Pool] opens streams to other pods over few, shared connections; a [Server]
// takes them. It knows TLS configurations and authorities, not policy: pkg/ztunnel
// decides who may do what.
package hbone

// Port is where tunnels are taken.
const Port = 15008
