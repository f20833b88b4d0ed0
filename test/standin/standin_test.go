// Package standin proves the wire between control plane and waypoint against a
// real Envoy that stands in the waypoint's place: our discovery, our certificates,
// our bootstrap, its judgement.
package standin

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/control/push"
)

// An Envoy with our bootstrap starts, is ready, and serves with the certificate
// that it was given.
func TestEnvoyServesWithOurCertificate(t *testing.T) {
	c := newCluster(t)
	c.configure("v1", "v1")
	e := c.envoy()
	e.until("ready", func() bool { return e.get("http://"+e.readiness.String()+"/healthz/ready") == "LIVE\n" })
	if got := e.get("http://" + e.metrics.String() + "/metrics"); !strings.Contains(got, "envoy_server_live") {
		t.Errorf("metrics: %.200s", got)
	}
	if got := e.get("http://" + e.metrics.String() + "/quitquitquit"); got != "404: " {
		t.Errorf("what is not for everybody: %q", got)
	}
	conn, err := tls.Dial("tcp", c.secure.String(), e.certificates.ClientTLS(self, []string{self.String()}))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if syncs := c.server.Clients(); len(syncs) != 1 || syncs[0].Waypoint != "shop/waypoint" || syncs[0].Types["routes"].Behind != 0 {
		t.Errorf("shown as %+v", syncs)
	}
}

// Routes move to clusters that did not exist before, and the old ones go, while
// requests come: none fails, and none is answered by what the routes no longer
// name once the change is acknowledged.
func TestNoRequestFailsWhileClustersComeAndGo(t *testing.T) {
	c := newCluster(t)
	c.configure("v0", "v0")
	e := c.envoy()
	address := "http://" + c.plain.String()
	e.until("served", func() bool { return e.get(address) == "v0" })
	ctx, cancel := context.WithCancel(t.Context())
	type tally struct {
		requests int
		failures []string
	}
	done := make(chan tally)
	for range 4 {
		go func() {
			var out tally
			for ctx.Err() == nil {
				answer := e.get(address)
				out.requests++
				if !strings.HasPrefix(answer, "v") {
					out.failures = append(out.failures, answer)
				}
			}
			done <- out
		}()
	}
	for i := range 40 {
		version := fmt.Sprintf("v%d", i+1)
		c.configure(version, version)
		e.until("the change", func() bool { return e.get(address) == version })
	}
	cancel()
	requests := 0
	var failures []string
	for range 4 {
		out := <-done
		requests += out.requests
		failures = append(failures, out.failures...)
	}
	t.Logf("%d requests over 40 changes", requests)
	if len(failures) > 0 {
		t.Errorf("%d of %d requests failed, as with %q", len(failures), requests, failures[0])
	}
}

// What Envoy refuses is shown with its name and reason, and the rest is served.
func TestEnvoysRefusalIsShown(t *testing.T) {
	c := newCluster(t)
	c.configure("v1", "v1")
	e := c.envoy()
	e.until("served", func() bool { return e.get("http://"+c.plain.String()) == "v1" })
	c.mu.Lock()
	c.extra = map[string]proto.Message{"broken": brokenListener()}
	c.mu.Unlock()
	c.configure("v2", "v2")
	e.until("the refusal", func() bool {
		for _, s := range c.server.Clients() {
			l := s.Types["listeners"]
			return slices.Equal(l.Refused, []string{"broken"}) && strings.Contains(l.Nack, "broken")
		}
		return false
	})
	e.until("the rest", func() bool { return e.get("http://"+c.plain.String()) == "v2" })
}

// Route configurations that Envoy refuses, which come in one response with others,
// keep none of these from being served.
func TestBadRoutesHarmNoOther(t *testing.T) {
	c := newCluster(t)
	c.configure("v1", "v1")
	e := c.envoy()
	e.until("served", func() bool { return e.get("http://"+c.plain.String()) == "v1" })
	c.mu.Lock()
	c.badRoutes = []string{"a-bad", "z-bad"}
	c.extra = map[string]proto.Message{"a-bad": listenerOf("a-bad"), "z-bad": listenerOf("z-bad")}
	c.mu.Unlock()
	c.configure("v2", "v2")
	e.until("the good one", func() bool { return e.get("http://"+c.plain.String()) == "v2" })
	e.until("the refusals", func() bool {
		s := c.server.Clients()
		return len(s) == 1 && slices.Equal(s[0].Types["routes"].Refused, []string{"a-bad", "z-bad"})
	})
	c.configure("v3", "v3")
	e.until("the next one", func() bool { return e.get("http://"+c.plain.String()) == "v3" })
}

// An Envoy that loses its control plane goes on, and is sent only what differs
// when it is back.
func TestControlPlaneAway(t *testing.T) {
	c := newCluster(t)
	c.configure("v1", "v1")
	e := c.envoy()
	e.until("served", func() bool { return e.get("http://"+c.plain.String()) == "v1" })
	c.stop()
	if got := e.get("http://" + c.plain.String()); got != "v1" {
		t.Errorf("without a control plane: %q", got)
	}
	c.configure("v1", "v1") // of a log that knows nothing of the last run
	c.start()
	e.until("connected again", func() bool {
		s := c.server.Clients()
		return len(s) == 1 && s[0].Types["routes"].Acked != ""
	})
	if n := c.sent(); n != 0 {
		t.Errorf("%d bytes of resources were sent to one that holds them", n)
	}
	c.configure("v2", "v2")
	e.until("the next change", func() bool { return e.get("http://"+c.plain.String()) == "v2" })
}

// get is an answer's body, with the status before it unless it is 200.
func (e *envoy) get(url string) string {
	ctx, cancel := context.WithTimeout(e.t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	b, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		return fmt.Sprintf("%d: %s", response.StatusCode, b)
	}
	return string(b)
}

func (e *envoy) until(what string, condition func() bool) {
	e.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !condition(); <-tick.C {
		if time.Now().After(end) {
			syncs, _ := json.MarshalIndent(e.cluster.server.Clients(), "", " ")
			e.t.Fatalf("waited in vain: %s\n%s\n%s", what, syncs, e.log.String())
		}
	}
}

var _ push.Generate = (&cluster{}).generate
