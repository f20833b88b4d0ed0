package auth

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/plane"
)

// An agent gets certificates for what runs on its node and for nothing else; an
// application for itself; who proves nothing is told why, and so is the operator.
func TestWhoMayHaveWhichCertificate(t *testing.T) {
	p := plane.Start(t, cluster.ForTest(t, cluster.Options{Name: "refuse"}))
	p.Apply(world)
	for _, n := range []string{"n1", "n2"} {
		p.Node(n, nil)
	}
	agent := p.Pod("istio-system", "ztunnel-n1", "ztunnel", "n1", "10.1.0.1", nil, nil)
	web := p.Pod("shop", "web-1", "web", "n1", "10.1.0.2", nil, nil)
	p.Pod("shop", "db-1", "db", "n2", "10.1.1.2", nil, nil)
	failed := p.Pod("shop", "job-1", "job", "n1", "10.1.0.3", nil, nil)
	failed.Status.Phase = corev1.PodFailed
	if _, err := p.Kube.CoreV1().Pods("shop").UpdateStatus(t.Context(), failed, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	asAgent, asWeb := p.Dial(p.Token(agent)), p.Dial(p.Token(web))
	p.Until("the control plane", func() bool { return strings.HasPrefix(p.Get("/healthz/ready"), "200") })

	for account, want := range map[string]string{
		"shop/web": "spiffe://cluster.local/ns/shop/sa/web", "": "spiffe://cluster.local/ns/istio-system/sa/ztunnel",
	} {
		if got, err := plane.Sign(t, asAgent, account); err != nil || got != want {
			t.Errorf("an agent for %q: %s, %v", account, got, err)
		}
	}
	if got, err := plane.Sign(t, asWeb, ""); err != nil || got != "spiffe://cluster.local/ns/shop/sa/web" {
		t.Errorf("an application for itself: %s, %v", got, err)
	}
	// Pods that came this moment, of which the control plane may not have heard.
	for i := range 20 {
		account := fmt.Sprint("new-", i)
		p.Pod("shop", account, account, "n1", "10.1.2."+strconv.Itoa(i+1), nil, nil)
		if _, err := plane.Sign(t, asAgent, "shop/"+account); err != nil {
			t.Errorf("an agent for a pod that came just now: %v", err)
		}
	}

	for what, c := range map[string]struct {
		account, why string
	}{
		"a pod of another node":  {"shop/db", "no pod of shop/db is on node n1"},
		"a pod that has failed":  {"shop/job", "no pod of shop/job is on node n1"},
		"an account without pod": {"shop/nobody", "no pod of shop/nobody is on node n1"},
	} {
		_, err := plane.Sign(t, asAgent, c.account)
		refused(t, p, "an agent for "+what, err, codes.Unauthenticated, c.why)
	}
	_, err := plane.Sign(t, asWeb, "shop/web")
	refused(t, p, "an application on behalf of others", err, codes.Unauthenticated, "service account shop/web may not ask on behalf of others")

	waiting, err := p.Kube.CoreV1().Pods("istio-system").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "waiting"}, Spec: corev1.PodSpec{ServiceAccountName: "ztunnel", SchedulerName: "none", Containers: []corev1.Container{{Name: "c", Image: "c"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	good := p.Token(agent)
	for i, c := range []struct{ what, token, why string }{
		{"no token of Kubernetes", file(t, "let me in"), "token is malformed"},
		{"a token for the API server", tokenFile(t, p, "istio-system", "ztunnel", "https://kubernetes.default.svc.cluster.local", agent), "not for istio-ca"},
		{"a token that is bound to no pod", tokenFile(t, p, "istio-system", "ztunnel", "istio-ca", nil), "is bound to no pod"},
		{"a token of a pod without a node", tokenFile(t, p, "istio-system", "ztunnel", "istio-ca", waiting), "names no node"},
		{"a token with a wrong signature", tampered(t, good), "the API server does not take it"},
	} {
		// Each from an address of its own, since wrong tokens are held against it.
		conn := dialFrom(t, p, "127.0.1."+strconv.Itoa(i+1), c.token)
		_, err := plane.Sign(t, conn, "shop/web")
		refused(t, p, c.what, err, codes.Unauthenticated, c.why)
		stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(t.Context())
		if err == nil {
			_, err = stream.Recv()
		}
		refused(t, p, c.what+", for workloads", err, codes.Unauthenticated, c.why)
	}

	stream, err := discovery.NewAggregatedDiscoveryServiceClient(asWeb).DeltaAggregatedResources(t.Context())
	if err == nil {
		_, err = stream.Recv()
	}
	refused(t, p, "an application for workloads", err, codes.PermissionDenied, "service account shop/web is no node agent's")

	// An agent's pod that is replaced by one of the same name: the old token is worth nothing,
	// at once, though it was proved a moment ago.
	zero := int64(0)
	if err := p.Kube.CoreV1().Pods("istio-system").Delete(t.Context(), "ztunnel-n1", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	next := p.Pod("istio-system", "ztunnel-n1", "ztunnel", "n1", "10.1.0.9", nil, nil)
	asNext := p.Dial(p.Token(next))
	p.Until("the new agent's pod", func() bool { _, err := plane.Sign(t, asNext, "shop/web"); return err == nil })
	p.Until("the end of the old one", func() bool { _, err := plane.Sign(t, asAgent, "shop/web"); return err != nil })
	_, err = plane.Sign(t, asAgent, "shop/web")
	refused(t, p, "an agent whose pod is gone", err, codes.Unauthenticated, "istio-system/ztunnel-n1 does not exist any more")

	for _, metric := range []string{`fairlead_ca_requests_refused_total{code="Unauthenticated"}`, `fairlead_token_reviews_total{result="refused"}`, `fairlead_token_reviews_total{result="implausible"}`, `fairlead_token_reviews_total{result="remembered"}`} {
		if value(p, metric) == 0 {
			t.Errorf("%s is not counted", metric)
		}
	}
	if log := p.Log(); strings.Contains(log, "eyJ") {
		t.Error("the log holds a token")
	}
}

// tampered is a token whose signature does not hold.
func tampered(t *testing.T, path string) string {
	t.Helper()
	text := read(t, path)
	i := strings.LastIndex(text, ".") + 10
	other := "A"
	if text[i] == 'A' {
		other = "B"
	}
	return file(t, text[:i]+other+text[i+1:])
}

// value is a metric's, 0 where it is not there.
func value(p *plane.Plane, name string) float64 {
	for _, line := range strings.Split(p.Get("/metrics"), "\n") {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			v, _ := strconv.ParseFloat(text, 64)
			return v
		}
	}
	return 0
}

// Whoever sends thousands of wrong tokens is held back before the API server, and others
// get their certificates meanwhile.
func TestAFloodOfWrongTokens(t *testing.T) {
	p := plane.Start(t, cluster.ForTest(t, cluster.Options{Name: "flood"}))
	p.Apply(world)
	p.Node("n1", nil)
	agent := p.Pod("istio-system", "ztunnel-n1", "ztunnel", "n1", "10.1.0.1", nil, nil)
	p.Pod("shop", "web-1", "web", "n1", "10.1.0.2", nil, nil)
	good := p.Token(agent)
	asAgent := p.Dial(good)
	p.Until("a certificate", func() bool { _, err := plane.Sign(t, asAgent, "shop/web"); return err == nil })

	text := read(t, good)
	at := strings.LastIndex(text, ".") + 1
	path := file(t, text)
	conn := dialFrom(t, p, "127.0.2.1", path)
	start := time.Now()
	const flood = 3_000
	for i := range flood {
		write(t, path, text[:at]+fmt.Sprintf("%06d", i)+text[at+6:])
		if _, err := plane.Sign(t, conn, "shop/web"); err == nil {
			t.Fatal("a wrong token was taken")
		}
		if i%300 == 0 {
			if _, err := plane.Sign(t, p.Dial(p.Token(agent)), "shop/web"); err != nil {
				t.Errorf("an agent that comes meanwhile: %v", err)
			}
		}
	}
	asked := value(p, "fairlead_token_review_seconds_count")
	t.Logf("%d wrong tokens in %v; the API server was asked %v times", flood, time.Since(start), asked)
	// Ten at once, one in two seconds, and those of the agent.
	if most := 10 + time.Since(start).Seconds()/2 + 12 + 5; asked > most {
		t.Errorf("the API server was asked %v times, at most %v", asked, most)
	}
	if value(p, `fairlead_token_reviews_total{result="limited"}`) < flood/2 {
		t.Error("who is held back is not counted")
	}
	if lines := strings.Count(p.Log(), "token refused"); lines > 5 {
		t.Errorf("%d lines of the log for one origin", lines)
	}
}
