package proxies

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
)

// lookedAt is how many of a proxy's last lines are searched for a workload's.
const lookedAt = 5000

// Record is a line of a proxy's log.
type Record struct {
	// By is the proxy: "agent NAME" or "waypoint NAME".
	By, Text string
}

// trouble are lines that tell of a failure: of our logs, of access records, a policy that denied among them, and of
// Envoy's records with an answer of the 5xx.
var trouble = regexp.MustCompile(`(?i)\b(error|warn|warning|failed|refused)\b|rbac_access_denied|"[A-Z]+ \S* HTTP/\S+" 5\d\d|"response_code":\s*5\d\d`)

// Trouble tells whether the record is of a failure.
func (r Record) Trouble() bool { return trouble.MatchString(r.Text) }

// Records are the lines that the agent and the waypoint of a pod have written about it
// and its services; all lines of a pod that is a proxy itself.
func Records(ctx context.Context, c *kube.Client, of Of) ([]Record, error) {
	var out []Record
	for _, from := range []struct {
		name  string
		pod   Pod
		about []string
	}{{"agent", of.Agent, []string{of.Pod.Name}}, {"waypoint", of.Waypoint, append(slices.Clone(of.Hosts), of.Pod.Name)}} {
		if from.pod == (Pod{}) || of.Self() && from.pod != of.Pod {
			continue
		}
		lines, err := c.Logs(ctx, from.pod.Namespace, from.pod.Name, lookedAt)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			if l != "" && (of.Self() || slices.ContainsFunc(from.about, func(name string) bool { return strings.Contains(l, name) })) {
				out = append(out, Record{from.name + " " + from.pod.Name, l})
			}
		}
	}
	return out, nil
}
