// Package handover passes a node from one agent to the next while both run, so that
// no connection is refused in between.
//
// The agent that owns the node holds a lock and listens on a socket beside it
// ([Give]). The next one connects ([Take]), receives the listeners of each pod, opened
// by the first and shared from then on, and makes everything ready while the first
// still serves. Then it says so: the first stops taking connections, lets go of the
// lock, and carries what it has until its end. A next one that fails before that
// leaves the first as it was.
//
// What the first carries between two sockets it can hand over after that ([Giver],
// [Taker.Connections]): each connection is the next one's when that has answered for
// it, and the first one's until then, whoever dies when.
//
// It is mechanism (layer 1); for cmd/node-agent. It imports nothing of the project.
package handover
