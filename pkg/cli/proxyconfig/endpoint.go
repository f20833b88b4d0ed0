package proxyconfig

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
)

// EndpointFilter chooses endpoints; empty fields choose all.
type EndpointFilter struct {
	Address, Cluster, Status string
	Port                     uint32
	// Hosts keeps clusters whose names hold one of them; nil: all.
	Hosts []string
}

// endpoint is a line of the table.
type endpoint struct {
	address, status, check, cluster string
	port                            uint32
}

func (f EndpointFilter) takes(e endpoint) bool {
	return (f.Address == "" || strings.EqualFold(f.Address, e.address)) && (f.Cluster == "" || strings.EqualFold(f.Cluster, e.cluster)) &&
		(f.Status == "" || strings.EqualFold(f.Status, e.status)) && (f.Port == 0 || f.Port == e.port) &&
		(f.Hosts == nil || slices.ContainsFunc(f.Hosts, func(h string) bool { return strings.Contains(e.cluster, h) }))
}

// Endpoints writes the endpoints in what /clusters?format=json answers.
func Endpoints(out io.Writer, raw []byte, f EndpointFilter, format string) error {
	var answer struct {
		Clusters []value `json:"cluster_statuses"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("this is not what a proxy's /clusters?format=json answers: %w", err)
	}
	var lines []endpoint
	var kept []value
	for _, c := range answer.Clusters {
		any := false
		for _, h := range document.List(c, "host_statuses") {
			e := endpointOf(h, document.Text(c, "name"))
			if f.takes(e) {
				any, lines = true, append(lines, e)
			}
		}
		if any {
			kept = append(kept, c)
		}
	}
	if format != document.Short {
		return write(out, format, kept, func() message { return &adminv3.ClusterStatus{} })
	}
	slices.SortFunc(lines, func(a, b endpoint) int {
		return cmp.Or(strings.Compare(a.address, b.address), cmp.Compare(a.port, b.port), strings.Compare(a.cluster, b.cluster))
	})
	w := table(out, 5)
	fmt.Fprintln(w, "ENDPOINT\tSTATUS\tOUTLIER CHECK\tCLUSTER")
	for _, e := range lines {
		address := e.address
		if e.port != 0 {
			address = fmt.Sprintf("%s:%d", e.address, e.port)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", address, e.status, e.check, e.cluster)
	}
	return w.Flush()
}

func endpointOf(host any, cluster string) endpoint {
	e := endpoint{
		address: document.Text(host, "address", "socket_address", "address"), port: number(host, "address", "socket_address", "port_value"),
		status: cmp.Or(document.Text(host, "health_status", "eds_health_status"), "UNKNOWN"), check: "OK", cluster: cluster,
	}
	if pipe := document.Text(host, "address", "pipe", "path"); pipe != "" {
		e.address = "unix://" + pipe
	}
	if internal := document.At(host, "address", "envoy_internal_address"); internal != nil {
		e.address = fmt.Sprintf("envoy://%s/%s", document.Text(internal, "server_listener_name"), document.Text(internal, "endpoint_id"))
	}
	if e.address == "" {
		e.address = "unknown"
	}
	if failed, _ := document.At(host, "health_status", "failed_outlier_check").(bool); failed {
		e.check = "FAILED"
	}
	return e
}
