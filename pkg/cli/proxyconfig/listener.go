package proxyconfig

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
)

// ListenerFilter chooses listeners; empty fields choose all.
type ListenerFilter struct {
	Address, Type string
	Port          uint32
	// Verbose shows each filter chain. Chains shows their names and how the listener's
	// matcher chooses them, which is what a waypoint's main listener goes by.
	Verbose, Chains bool
}

const (
	httpManager = "envoy.filters.network.http_connection_manager"
	tcpProxy    = "envoy.filters.network.tcp_proxy"
)

func (d *Dump) listeners(f ListenerFilter) []value {
	all := inner(d.entries("ListenersConfigDump", "dynamic_listeners"), "active_state", "listener")
	all = append(all, inner(d.entries("ListenersConfigDump", "static_listeners"), "listener")...)
	all = slices.DeleteFunc(all, func(l value) bool {
		return f.Address != "" && !slices.Contains(addresses(l), f.Address) || f.Port != 0 && portOf(l) != f.Port ||
			f.Type != "" && !strings.EqualFold(typeOf(l), f.Type)
	})
	slices.SortStableFunc(all, func(a, b value) int {
		return cmp.Or(cmp.Compare(portOf(a), portOf(b)), strings.Compare(addresses(a)[0], addresses(b)[0]), strings.Compare(typeOf(a), typeOf(b)))
	})
	return all
}

// addresses are a listener's, the first first, "" where it has none.
func addresses(l value) []string {
	out := []string{cmp.Or(document.Text(l, "address", "socket_address", "address"), document.Text(l, "address", "pipe", "path"))}
	for _, a := range document.List(l, "additional_addresses") {
		out = append(out, document.Text(a, "address", "socket_address", "address"))
	}
	return out
}

func portOf(l value) uint32 { return number(l, "address", "socket_address", "port_value") }

func chains(l value) (out []value) {
	for _, c := range document.List(l, "filter_chains") {
		if chain, ok := c.(value); ok {
			out = append(out, chain)
		}
	}
	if last, ok := document.At(l, "default_filter_chain").(value); ok {
		out = append(out, last)
	}
	return out
}

func typeOf(l value) string {
	http, tcp := false, false
	for _, c := range chains(l) {
		for _, f := range document.List(c, "filters") {
			http = http || document.Text(f, "name") == httpManager
			tcp = tcp || document.Text(f, "name") == tcpProxy && !strings.Contains(document.Text(f, "typed_config", "cluster"), "BlackHoleCluster")
		}
	}
	switch {
	case http && tcp:
		return "HTTP+TCP"
	case http:
		return "HTTP"
	case tcp:
		return "TCP"
	}
	return "UNKNOWN"
}

// Listeners writes the listeners.
func (d *Dump) Listeners(out io.Writer, f ListenerFilter, format string) error {
	all := d.listeners(f)
	if format != document.Short {
		return write(out, format, all, func() message { return &listenerv3.Listener{} })
	}
	w := table(out, 1)
	if f.Chains {
		fmt.Fprintln(w, "LISTENER\tCHAIN\tMATCH\tDESTINATION")
		for _, l := range all {
			for _, c := range chains(l) {
				for _, match := range chosenBy(l, c) {
					fmt.Fprintf(w, "envoy://%s\t%s\t%s\t%s\n", document.Text(l, "name"), document.Text(c, "name"), match, leadsTo(c))
				}
			}
		}
		return w.Flush()
	}
	if !f.Verbose {
		fmt.Fprintln(w, "ADDRESSES\tPORT\tTYPE")
		for _, l := range all {
			fmt.Fprintf(w, "%s\t%d\t%s\n", strings.Join(addresses(l), ","), portOf(l), typeOf(l))
		}
		return w.Flush()
	}
	fmt.Fprintln(w, "ADDRESSES\tPORT\tMATCH\tDESTINATION")
	for _, l := range all {
		inOrder := chains(l)
		slices.SortStableFunc(inOrder, func(a, b value) int { return strings.Compare(leadsTo(b), leadsTo(a)) })
		for _, c := range inOrder {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", strings.Join(addresses(l), ","), portOf(l), chainMatch(document.At(c, "filter_chain_match")), leadsTo(c))
		}
	}
	return w.Flush()
}

// chainMatch is a filter chain's own match in words.
func chainMatch(m any) string {
	var out []string
	if names := document.Texts(m, "server_names"); len(names) > 0 {
		out = append(out, "SNI: "+strings.Join(names, ","))
	}
	if p := document.Text(m, "transport_protocol"); p != "" {
		out = append(out, "Trans: "+p)
	}
	if p := document.Texts(m, "application_protocols"); len(p) > 0 {
		out = append(out, "App: "+cmp.Or(protocols[strings.Join(p, ",")], strings.Join(p, ",")))
	}
	port := ""
	if n := number(m, "destination_port"); n != 0 {
		port = fmt.Sprintf(":%d", n)
	}
	var ranges []string
	for _, r := range document.List(m, "prefix_ranges") {
		ranges = append(ranges, fmt.Sprintf("%s/%d", document.Text(r, "address_prefix"), number(r, "prefix_len")))
	}
	if len(ranges) > 0 {
		out = append(out, "Addr: "+strings.Join(ranges, ",")+port)
	} else if port != "" {
		out = append(out, "Addr: *"+port)
	}
	if len(out) == 0 {
		return "ALL"
	}
	return strings.Join(out, "; ")
}

// protocols are sets of ALPN names that Istio's listeners match, with its words for them.
var protocols = map[string]string{
	"http/1.0,http/1.1,h2c": "HTTP",
	"http/1.0,http/1.1,h2c,istio-http/1.0,istio-http/1.1,istio-h2": "HTTP TLS",
	"istio,istio-http/1.0,istio-http/1.1,istio-h2":                 "Istio HTTP Plain",
	"istio-peer-exchange,istio":                                    "TCP TLS",
}

// leadsTo is where a chain sends what it takes.
func leadsTo(c value) string {
	for _, f := range document.List(c, "filters") {
		config := document.At(f, "typed_config")
		switch document.Text(f, "name") {
		case httpManager:
			if table := document.At(config, "route_config"); table != nil {
				return inlineRoutes(table)
			}
			if name := document.Text(config, "rds", "route_config_name"); name != "" {
				return "Route: " + name
			}
			return "HTTP"
		case tcpProxy:
			switch cluster := document.Text(config, "cluster"); {
			case strings.Contains(cluster, "BlackHoleCluster"):
			case strings.Contains(cluster, "Cluster"):
				return cluster
			default:
				return "Cluster: " + cluster
			}
		}
	}
	return "Non-HTTP/Non-TCP"
}

func inlineRoutes(table any) string {
	hosts := document.List(table, "virtual_hosts")
	if len(hosts) == 1 && slices.Equal(document.Texts(hosts[0], "domains"), []string{"*"}) {
		routes := document.List(hosts[0], "routes")
		if len(routes) == 1 && document.Text(routes[0], "match", "prefix") == "/" {
			if cluster := document.Text(routes[0], "route", "cluster"); strings.Contains(cluster, "Cluster") {
				return cluster
			} else if cluster != "" {
				return "Cluster: " + cluster
			}
		}
	}
	var out []string
	for _, h := range hosts {
		var matches []string
		for _, r := range document.List(h, "routes") {
			matches = append(matches, routeMatch(document.At(r, "match")))
		}
		text := strings.Join(matches, ", ")
		if names := document.Texts(h, "domains"); !slices.Equal(names, []string{"*"}) {
			text = strings.Join(names, "/") + " " + text
		}
		out = append(out, text)
	}
	return "Inline Route: " + strings.Join(out, "; ")
}
