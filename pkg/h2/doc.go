// Package h2 is Fairlead's HTTP/2 engine (RFC 9113, RFC 7541, RFC 8441), client and
// server, for requests and their answers and for tunnels of bytes.
//
// One goroutine per connection reads frames. A server's stream has a goroutine of
// its own, which may do everything with it and wait where it must: Next and Read for
// what comes, Respond, Send and Finish for what goes, each until a deadline. A
// stream is a net.Conn as well; one that is relayed to a socket gets its DATA from
// the reader directly. A stream or a connection that is idle holds no buffer.
//
// What a peer can make it keep is bounded: streams, windows, header lists, resets
// and control frames; and what it sends is checked as section 8 demands, so that
// no malformed message comes out. pkg/hbone is CONNECT on top of it, and the
// waypoint's codec serves requests with it.
package h2
