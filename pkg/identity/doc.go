// Package identity holds the certificates of a node's pods: it asks the CA for
// them ahead of use, renews them at half-life, forgets them when unused, and
// makes the TLS configurations of tunnels from them.
//
// Keys never leave the node and never touch a disk: the cache directory must be
// a tmpfs. Engines get certificates through a [Manager]; commands construct it.
package identity
