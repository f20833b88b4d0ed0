package ztunnelconfig

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
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
		return (f.Namespace == "" || f.Namespace == str(s, "info", "namespace")) && (f.Workload == "" || strings.EqualFold(f.Workload, str(s, "info", "name")))
	})
	slices.SortFunc(all, func(a, b value) int {
		return cmp.Or(strings.Compare(str(a, "info", "namespace"), str(b, "info", "namespace")), strings.Compare(str(a, "info", "name"), str(b, "info", "name")))
	})
	return all
}

// ShowConnections writes the connections of the pods that the agent has enrolled.
func (d *Dump) ShowConnections(out io.Writer, f ConnectionFilter, format string) error {
	all := d.states(f)
	if format != Short {
		return document(out, format, all)
	}
	name := d.names(f.Raw)
	w := table(out)
	fmt.Fprintln(w, "WORKLOAD\tDIRECTION\tLOCAL\tREMOTE\tREMOTE TARGET\tPROTOCOL")
	for _, s := range all {
		workload := str(s, "info", "name") + "." + str(s, "info", "namespace")
		if f.Direction != "outbound" {
			for _, c := range list(s, "connections", "inbound") {
				fmt.Fprintf(w, "%s\tInbound\t%s\t%s\t%s\t%s\n", workload, name(str(c, "actualDst")), name(str(c, "src")), str(c, "originalDst"), str(c, "protocol"))
			}
		}
		if f.Direction != "inbound" {
			for _, c := range list(s, "connections", "outbound") {
				fmt.Fprintf(w, "%s\tOutbound\t%s\t%s\t%s\t%s\n", workload, name(str(c, "src")), name(str(c, "actualDst")), name(str(c, "originalDst")), str(c, "protocol"))
			}
		}
	}
	return w.Flush()
}

// names gives addresses the names of services and workloads that have them.
func (d *Dump) names(raw bool) func(string) string {
	of := map[string]string{}
	for _, w := range d.Workloads {
		for _, ip := range texts(w, "workloadIps") {
			of[ip] = str(w, "name") + "." + str(w, "namespace")
		}
	}
	for _, s := range d.Services {
		for _, v := range texts(s, "vips") {
			_, ip, _ := strings.Cut(v, "/")
			of[ip] = str(s, "hostname")
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
