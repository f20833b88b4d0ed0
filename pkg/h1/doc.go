// Package h1 is Fairlead's HTTP/1.1 codec (RFC 9112): it finds and parses heads in
// a buffer that the caller reads into, decodes bodies, and appends heads and chunks
// to a buffer that the caller writes. It does no I/O and, but for trailers and rare
// forms, allocates nothing: strings of a head stand in the buffer.
//
// It is strict: what the RFC calls an error is one, and where the RFC lets a
// recipient choose, it refuses whatever two parsers might read differently. Bare CR
// and LF, folded lines, doubled lengths and blanks around names never get through.
// Limits and the choice of what is forwarded are Envoy's.
//
// pkg/waypoint/codec runs connections with it; it imports pkg/message alone.
package h1
