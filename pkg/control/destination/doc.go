// Package destination says which DestinationRule holds for a service at a
// waypoint, and which policy for a port and a subset. It is pure.
//
// Rules are looked for in the waypoint's namespace, then in the service's, then
// in the root namespace; the latter two only as far as exportTo shows them to
// the waypoint's namespace. In the first namespace that has any, a rule whose
// workloadSelector selects the waypoint goes before others, then the rule with
// the longest host. Rules of one namespace for one host are one rule: the oldest
// gives the traffic policy, if it has one, and each its subsets, of which the
// first of a name counts.
//
// For packages under pkg/control.
package destination
