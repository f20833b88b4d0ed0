package proxyconfig

import (
	"fmt"
	"io"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

func (d *Dump) routes(name string) []value {
	all := inner(d.entries("RoutesConfigDump", "dynamic_route_configs", "static_route_configs"), "route_config")
	all = slices.DeleteFunc(all, func(r value) bool { return name != "" && str(r, "name") != name })
	slices.SortStableFunc(all, func(a, b value) int { return strings.Compare(str(a, "name"), str(b, "name")) })
	return all
}

// Routes writes the route tables of a name, or all; verbose with each route.
func (d *Dump) Routes(out io.Writer, name string, verbose bool, format string) error {
	all := d.routes(name)
	if format != Short {
		return write(out, format, all, func() message { return &routev3.RouteConfiguration{} })
	}
	w := table(out, 5)
	if !verbose {
		fmt.Fprintln(w, "NAME\tVIRTUAL HOSTS")
		for _, r := range all {
			fmt.Fprintf(w, "%s\t%d\n", str(r, "name"), len(list(r, "virtual_hosts")))
		}
		return w.Flush()
	}
	fmt.Fprintln(w, "NAME\tVHOST NAME\tDOMAINS\tMATCH\tVIRTUAL SERVICE")
	for _, r := range all {
		for _, host := range list(r, "virtual_hosts") {
			line := func(match, by string) {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", str(r, "name"), str(host, "name"), domains(texts(host, "domains")), match, by)
			}
			routes := list(host, "routes")
			if len(routes) == 0 {
				line("/*", "404")
			}
			for _, one := range routes {
				if route, ok := one.(value); ok && str(route, "route", "cluster") != "PassthroughCluster" {
					line(routeMatch(at(route, "match")), managedBy(route))
				}
			}
		}
	}
	return w.Flush()
}

func routeMatch(match any) string {
	var out []string
	if p := str(match, "prefix"); p != "" {
		out = append(out, p+"*")
	}
	if p := str(match, "path_separated_prefix"); p != "" {
		out = append(out, "PathPrefix:"+p)
	}
	if p := str(match, "path"); p != "" {
		out = append(out, p)
	}
	if p := str(match, "safe_regex", "regex"); p != "" {
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
