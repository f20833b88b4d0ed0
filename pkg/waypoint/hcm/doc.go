// Package hcm is the HTTP connection manager: it takes the exchanges of a
// connection from the codec, brings their heads into order as Envoy does, has the
// filters look at them, gives them to the router, and writes what came of it into
// the record. Package listener makes it; it imports the packages beside it.
package hcm
