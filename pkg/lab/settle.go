package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/lab/objects"
)

// How long a lab that is otherwise ready waits until its agents have heard of all
// pods. Another control plane may know other pods, and then it is not awaited.
const (
	settleTimeout = 10 * time.Second
	settleEvery   = 20 * time.Millisecond
	adminPort     = 15000
	maxDump       = 256 << 20
)

// heard is a pod as an agent should know it.
type heard struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Protocol  string `json:"protocol"`
	Status    string `json:"status"`
}

// settle returns when every agent knows every pod as it is: a lab is ready when
// the next connection goes the right way, not when the control plane could know it.
func (l *Lab) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	missing := "the lab's own state"
	for {
		nodes, want, err := l.expected(ctx)
		if err == nil {
			missing = ""
			for _, n := range nodes {
				if missing = unheard(ctx, n, want); missing != "" {
					break
				}
			}
		}
		if missing == "" {
			return
		}
		if !pause(ctx, settleEvery) {
			l.log.Warn("the agents do not know all pods yet", "missing", missing)
			return
		}
	}
}

// expected are the nodes with an agent, and what each should know.
func (l *Lab) expected(ctx context.Context) (nodes []*node, want map[objects.Key]heard, err error) {
	want = map[objects.Key]heard{}
	err = l.ask(ctx, func() {
		for _, n := range l.sortedNodes() {
			if n.agent != nil && n.agentReady {
				nodes = append(nodes, n)
			}
		}
		for _, p := range l.pods {
			if p.deleting || !p.ready || p.spec.HostNetwork {
				continue
			}
			h := heard{Name: p.key.Name, Namespace: p.key.Namespace, Protocol: "TCP", Status: "Healthy"}
			if p.announced {
				h.Protocol = "HBONE"
			}
			want[p.key] = h
		}
	})
	return nodes, want, err
}

// unheard is what an agent does not know, or "".
func unheard(ctx context.Context, n *node, want map[objects.Key]heard) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://localhost:%d/config_dump", adminPort), nil)
	if err != nil {
		return err.Error()
	}
	res, err := n.http().Do(req)
	if err != nil {
		return "the agent of " + n.name + ": " + err.Error()
	}
	defer res.Body.Close()
	var dump struct {
		Workloads []heard `json:"workloads"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxDump)).Decode(&dump); err != nil {
		return "the agent of " + n.name + ": " + err.Error()
	}
	known := map[heard]bool{}
	for _, w := range dump.Workloads {
		known[w] = true
	}
	for key, h := range want {
		if !known[h] {
			return fmt.Sprintf("%s on %s", key, n.name)
		}
	}
	return ""
}

// http is a client inside the node's namespace, for its agent's ports on loopback.
func (n *node) http() *http.Client {
	return &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, address string) (c net.Conn, err error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			// The namespace's loopback, whatever the machine calls it.
			err = n.host.NS().Do(func() error {
				for _, loopback := range []string{"127.0.0.1", "::1"} {
					if c, err = net.DialTimeout(network, net.JoinHostPort(loopback, port), time.Second); err == nil {
						return nil
					}
				}
				return err
			})
			return c, err
		},
	}}
}
