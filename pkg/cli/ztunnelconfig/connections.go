package ztunnelconfig

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
)

// ConnectionFilter chooses connections; empty fields choose all.
type ConnectionFilter struct {
	Namespace, Workload string
	// Direction is inbound or outbound.
	Direction string
	// Raw shows addresses in place of names.
	Raw bool
}

func (d *Dump) states(f ConnectionFilter) []value {
	all := choose(slices.Collect(maps.Values(d.WorkloadState)), func(s value) bool {
		return (f.Namespace == "" || f.Namespace == document.Text(s, "info", "namespace")) && (f.Workload == "" || strings.EqualFold(f.Workload, document.Text(s, "info", "name")))
	})
	slices.SortFunc(all, func(a, b value) int {
		return cmp.Or(strings.Compare(document.Text(a, "info", "namespace"), document.Text(b, "info", "namespace")), strings.Compare(document.Text(a, "info", "name"), document.Text(b, "info", "name")))
	})
	return all
}

// ShowConnections writes the connections of the pods that the agent has enrolled.
func (d *Dump) ShowConnections(out io.Writer, f ConnectionFilter, format string) error {
	all := d.states(f)
	if format != document.Short {
		return document.Write(out, format, all)
	}
	name := d.names(f.Raw)
	w := table(out)
	fmt.Fprintln(w, "WORKLOAD\tDIRECTION\tLOCAL\tREMOTE\tREMOTE TARGET\tPROTOCOL")
	for _, s := range all {
		workload := document.Text(s, "info", "name") + "." + document.Text(s, "info", "namespace")
		if f.Direction != "outbound" {
			for _, c := range document.List(s, "connections", "inbound") {
				fmt.Fprintf(w, "%s\tInbound\t%s\t%s\t%s\t%s\n", workload, name(document.Text(c, "actualDst")), name(document.Text(c, "src")), document.Text(c, "originalDst"), document.Text(c, "protocol"))
			}
		}
		if f.Direction != "inbound" {
			for _, c := range document.List(s, "connections", "outbound") {
				fmt.Fprintf(w, "%s\tOutbound\t%s\t%s\t%s\t%s\n", workload, name(document.Text(c, "src")), name(document.Text(c, "actualDst")), name(document.Text(c, "originalDst")), document.Text(c, "protocol"))
			}
		}
	}
	return w.Flush()
}

// names gives addresses the names of services and workloads that have them.
func (d *Dump) names(raw bool) func(string) string {
	of := map[string]string{}
	for _, w := range d.Workloads {
		for _, ip := range document.Texts(w, "workloadIps") {
			of[ip] = document.Text(w, "name") + "." + document.Text(w, "namespace")
		}
	}
	for _, s := range d.Services {
		for _, v := range document.Texts(s, "vips") {
			_, ip, _ := strings.Cut(v, "/")
			of[ip] = document.Text(s, "hostname")
		}
	}
	return func(address string) string {
		ip, port, err := net.SplitHostPort(address)
		if found := of[ip]; err == nil && found != "" && !raw {
			return net.JoinHostPort(found, port)
		}
		return address
	}
}
