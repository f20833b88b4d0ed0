// Package netns enters network namespaces safely. It is the only package that
// locks a goroutine to its thread: everyone else hands it a function and gets
// sockets, devices or processes that belong to the namespace.
//
// A socket belongs for life to the namespace it was made in, so callers keep
// what they do inside [NS.Do] short: make the socket, come back, use it
// anywhere.
//
// It is mechanism (layer 1): engines, the lab and tests may import it; it
// imports nothing of the project.
package netns
