// Package telemetry turns connections into metrics and access records.
//
// A [Recorder] opens one [Record] per connection and closes it exactly once, with
// the reason; the counters and the log line come from the same fields. Names,
// labels and the direction of bytes are Istio's (istio_tcp_*). Counters are
// resolved once, when the record opens.
//
// Engines use it; it imports pkg/mesh alone.
package telemetry

// Version is the build's version, set by the linker.
var Version = "unknown"
