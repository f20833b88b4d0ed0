// Package admin is a part's window: configuration dump, log level and profiles
// for its operator on loopback (15000), metrics (15020) and readiness (15021)
// for everyone.
//
// The dump has the keys of Istio's node proxy, so that `istioctl ztunnel-config`
// reads it. Commands (cmd/) build it and hand it what to show; it imports
// pkg/mesh alone.
package admin
