// Package proxy makes service addresses work on a lab's node without the mesh:
// nftables rules that send a connection to one of the service's endpoints, as
// kube-proxy does it. With the mesh, enrolled pods never get here: their
// connections are taken at connect().
//
// The rules are a pure function of the services; applying them is one
// transaction. It is part of the lab and only the lab imports it.
package proxy
