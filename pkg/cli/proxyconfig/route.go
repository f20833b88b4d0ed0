package proxyconfig

import (
	"fmt"
	"io"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
)

func (d *Dump) routes(name string) []value {
	all := inner(d.entries("RoutesConfigDump", "dynamic_route_configs", "static_route_configs"), "route_config")
	all = slices.DeleteFunc(all, func(r value) bool { return name != "" && document.Text(r, "name") != name })
	slices.SortStableFunc(all, func(a, b value) int { return strings.Compare(document.Text(a, "name"), document.Text(b, "name")) })
	return all
}

// Routes writes the route tables of a name, or all; verbose with each route.
func (d *Dump) Routes(out io.Writer, name string, verbose bool, format string) error {
	all := d.routes(name)
	if format != document.Short {
		return write(out, format, all, func() message { return &routev3.RouteConfiguration{} })
	}
	w := table(out, 5)
	if !verbose {
		fmt.Fprintln(w, "NAME\tVIRTUAL HOSTS")
		for _, r := range all {
			fmt.Fprintf(w, "%s\t%d\n", document.Text(r, "name"), len(document.List(r, "virtual_hosts")))
		}
		return w.Flush()
	}
	fmt.Fprintln(w, "NAME\tVHOST NAME\tDOMAINS\tMATCH\tVIRTUAL SERVICE")
	for _, r := range all {
		for _, host := range document.List(r, "virtual_hosts") {
			line := func(match, by string) {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", document.Text(r, "name"), document.Text(host, "name"), domains(document.Texts(host, "domains")), match, by)
			}
			routes := document.List(host, "routes")
			if len(routes) == 0 {
				line("/*", "404")
			}
			for _, one := range routes {
				if route, ok := one.(value); ok && document.Text(route, "route", "cluster") != "PassthroughCluster" {
					line(routeMatch(document.At(route, "match")), managedBy(route))
				}
			}
		}
	}
	return w.Flush()
}

func routeMatch(match any) string {
	var out []string
	if p := document.Text(match, "prefix"); p != "" {
		out = append(out, p+"*")
	}
	if p := document.Text(match, "path_separated_prefix"); p != "" {
		out = append(out, "PathPrefix:"+p)
	}
	if p := document.Text(match, "path"); p != "" {
		out = append(out, p)
	}
	if p := document.Text(match, "safe_regex", "regex"); p != "" {
		out = append(out, "regex "+p)
	}
	return strings.Join(out, " ")
}

// maxDomains are named of a virtual host.
const maxDomains = 2

// domains are a host's without ports and without the longer forms of what is there.
func domains(all []string) string {
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	var plain []string
	for _, d := range all {
		if !strings.Contains(d, ":") || strings.Count(d, ":") > 2 && strings.HasSuffix(d, "]") {
			plain = append(plain, d)
		}
	}
	short := slices.DeleteFunc(slices.Clone(plain), func(d string) bool {
		for _, suffix := range []string{".svc.cluster.local", ".svc"} {
			if s := strings.TrimSuffix(d, suffix); s != d && slices.Contains(plain, s) {
				return true
			}
		}
		return false
	})
	if len(short) > maxDomains {
		return fmt.Sprintf("%s + %d more...", strings.Join(short[:maxDomains], ", "), len(short)-maxDomains)
	}
	return strings.Join(short, ", ")
}
