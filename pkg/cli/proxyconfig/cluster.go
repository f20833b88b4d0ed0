package proxyconfig

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
)

// ClusterFilter chooses clusters; empty fields choose all.
type ClusterFilter struct {
	FQDN, Subset, Direction string
	Port                    int
}

func (f ClusterFilter) takes(name string) bool {
	return strings.Contains(name, f.FQDN) && strings.Contains(name, f.Subset) && strings.Contains(name, f.Direction) &&
		(f.Port == 0 || strings.Contains(name, fmt.Sprintf("|%d|", f.Port)))
}

// subsetKey is what a cluster's name says: "outbound|9080|v1|reviews.default.svc.cluster.local".
type subsetKey struct {
	direction, subset, host string
	port                    int
}

func parseKey(name string) (subsetKey, bool) {
	parts := strings.Split(name, "|")
	if len(parts) < 4 {
		return subsetKey{host: name}, false
	}
	port, _ := strconv.Atoi(parts[1])
	return subsetKey{parts[0], parts[2], parts[3], port}, true
}

func compareKeys(a, b string) int {
	x, _ := parseKey(a)
	y, _ := parseKey(b)
	return cmp.Or(strings.Compare(x.host, y.host), strings.Compare(x.subset, y.subset), cmp.Compare(x.port, y.port), strings.Compare(x.direction, y.direction))
}

func (d *Dump) clusters(f ClusterFilter) []value {
	all := inner(d.entries("ClustersConfigDump", "dynamic_active_clusters", "static_clusters"), "cluster")
	all = slices.DeleteFunc(all, func(c value) bool { return !f.takes(document.Text(c, "name")) })
	slices.SortFunc(all, func(a, b value) int { return compareKeys(document.Text(a, "name"), document.Text(b, "name")) })
	return all
}

// Clusters writes the clusters.
func (d *Dump) Clusters(out io.Writer, f ClusterFilter, format string) error {
	all := d.clusters(f)
	if format != document.Short {
		return write(out, format, all, func() message { return &clusterv3.Cluster{} })
	}
	w := table(out, 5)
	fmt.Fprintln(w, "SERVICE FQDN\tPORT\tSUBSET\tDIRECTION\tTYPE\tDESTINATION RULE")
	for _, c := range all {
		kind := cmp.Or(document.Text(c, "type"), "STATIC")
		if document.At(c, "cluster_type") != nil {
			kind = "STATIC" // what the message says that a custom type leaves out
		}
		key, ok := parseKey(document.Text(c, "name"))
		if !ok {
			fmt.Fprintf(w, "%s\t-\t-\t-\t%s\t%s\n", key.host, kind, managedBy(c))
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", key.host, key.port, cmp.Or(key.subset, "-"), key.direction, kind, managedBy(c))
	}
	return w.Flush()
}

// managedBy is the object that Istio's metadata names, as "name.namespace".
func managedBy(v value) string {
	path := document.Text(v, "metadata", "filter_metadata", "istio", "config")
	if path == "" {
		return ""
	}
	parts := strings.Split(path, "/")
	if !strings.HasPrefix(path, "/apis/networking.istio.io/") {
		return "<unknown>"
	}
	if len(parts) != 8 {
		return ""
	}
	return parts[7] + "." + parts[5]
}

func table(out io.Writer, padding int) *tabwriter.Writer {
	return tabwriter.NewWriter(out, 0, 8, padding, ' ', 0)
}
