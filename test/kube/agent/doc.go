// Package agent holds the promises of the node agent on real kubelets: pods that run
// are enrolled live, new ones before their first process; probes work under STRICT; an
// agent is replaced under traffic; without one nothing that is enrolled talks in
// clear, nor while a node boots; and an uninstalled agent leaves nothing.
package agent
