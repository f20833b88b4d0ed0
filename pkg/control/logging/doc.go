// Package logging turns the Telemetry API's access logging and the mesh
// configuration's log settings into Envoy's access loggers of a waypoint, and says
// on each Telemetry what of it is in effect. It is pure: the same model gives the
// same loggers.
//
// Who decides at a waypoint, the later over the earlier: a Telemetry of the root
// namespace, of the waypoint's namespace, for the Gateway (by targetRefs, or by a
// selector on the label that names it), for the service. Of several for the same
// the oldest counts, then by name. Where no Telemetry speaks of access logs and the
// mesh has no default providers, accessLogFile decides.
//
// For packages under pkg/control and cmd/control-plane.
package logging
