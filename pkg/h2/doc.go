// Package h2 is Fairlead's HTTP/2 engine: framing, flow control and header
// compression (RFC 9113, RFC 7541), client and server, for tunnels of bytes.
//
// One goroutine per connection reads frames and hands DATA straight to the
// stream's destination socket; a stream that is idle holds no buffer. What a
// peer can make it keep is bounded: streams, windows, header lists, resets and
// control frames. pkg/hbone is CONNECT on top of it.
package h2
