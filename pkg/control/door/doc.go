// Package door lets in who connects, so many at a time: a restart brings every agent at
// once, each with a handshake to compute and megabytes to say.
//
// A [Turn] is had from before a connection's TLS handshake until its first stream was
// told what it lacks. Who waits for one costs a socket and a small stack, nothing is read
// of it, and who has gone away meanwhile is passed over. So handshakes that begin end in
// time, and what peers can make the server hold does not grow with how many they are.
//
// [turns.Queue] gives them. For cmd/control-plane and pkg/control/push.
package door
