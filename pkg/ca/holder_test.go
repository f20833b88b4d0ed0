package ca

import (
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// own is an authority with a root of its own, and what it is made of.
func own(t *testing.T) (*Authority, Material) {
	t.Helper()
	m, err := Generate("cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	return parsed(t, m), m
}

func parsed(t *testing.T, m Material) *Authority {
	t.Helper()
	a, err := Parse(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func holder(t *testing.T, settle time.Duration) (*Holder, *strings.Builder) {
	t.Helper()
	var said strings.Builder
	h, err := NewHolder(HolderOptions{Settle: settle, Registry: prometheus.NewRegistry(), Logger: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return h, &said
}

// In three steps, as an operator does it by hand, nothing waits.
func TestARootIsReplacedByHand(t *testing.T) {
	a, first := own(t)
	b, second := own(t)
	both := append(a.RootsPEM(), b.RootsPEM()...)
	h, said := holder(t, time.Hour)
	for i, m := range []Material{
		first,
		{Cert: first.Cert, Key: first.Key, Roots: both},
		{Cert: second.Cert, Key: second.Key, Roots: both},
		{Cert: second.Cert, Key: second.Key, Roots: second.Cert},
	} {
		changed, want := h.Changed(), parsed(t, m)
		h.Set(want, "a Secret")
		if got := h.Current(); !got.Equal(want) {
			t.Errorf("step %d: it signs as %s with roots %s", i, name(got.cert), names(got.roots))
		}
		select {
		case <-changed:
		default:
			t.Errorf("step %d: nobody was told", i)
		}
	}
	changed := h.Changed()
	h.Set(h.Current(), "a Secret")
	select {
	case <-changed:
		t.Error("the same authority is a change")
	default:
	}
	if !strings.Contains(said.String(), "are trusted no more") || strings.Count(said.String(), "level=WARN") != 1 {
		t.Errorf("that the first root is dropped is said once:\n%s", said)
	}
}

// A root that nobody trusts yet is published first and signs later, whatever the
// operator does.
func TestAStrangeRootIsPublishedBeforeItSigns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := own(t)
		b, second := own(t)
		h, said := holder(t, time.Minute)
		h.Set(a, "a Secret")
		combined := parsed(t, Material{Cert: second.Cert, Key: second.Key, Roots: append(a.RootsPEM(), b.RootsPEM()...)})
		h.Set(combined, "a Secret")
		for range 3 { // the same again, as informers say it, starts nothing anew
			if got := h.Current(); !got.cert.Equal(a.cert) || !holds(got.roots, a.cert) || !holds(got.roots, b.cert) {
				t.Fatalf("it signs as %s with roots %s", name(got.cert), names(got.roots))
			}
			<-time.After(19 * time.Second)
			h.Set(combined, "a Secret")
		}
		<-time.After(4 * time.Second)
		if got := h.Current(); !got.Equal(combined) {
			t.Errorf("it signs as %s with roots %s", name(got.cert), names(got.roots))
		}
		if !strings.Contains(said.String(), "does not trust yet") {
			t.Error(said)
		}
		// The operator changes his mind while a root settles.
		c, _ := own(t)
		h.Set(c, "a Secret")
		h.Set(combined, "a Secret")
		<-time.After(time.Hour)
		if got := h.Current(); !got.Equal(combined) {
			t.Errorf("what was taken back signs: %s", name(got.cert))
		}
	})
}

func TestWrongMaterialChangesNothing(t *testing.T) {
	a, _ := own(t)
	h, said := holder(t, 0)
	h.Set(a, "a Secret")
	h.Refuse("Secret istio-system/cacerts", errors.New("ca-key.pem: it is not PEM"))
	if h.Current() != a || testutil.ToFloat64(h.metrics.refused) != 1 || !strings.Contains(said.String(), "it is not PEM") {
		t.Errorf("refused %v:\n%s", testutil.ToFloat64(h.metrics.refused), said)
	}
	b, _ := own(t)
	h.Set(b, "a Secret")
	if h.Current() != b || testutil.ToFloat64(h.metrics.refused) != 0 {
		t.Errorf("refused %v", testutil.ToFloat64(h.metrics.refused))
	}
}

func TestPartsThatDoNotBelongTogetherAreRefused(t *testing.T) {
	_, m := own(t)
	_, other := own(t)
	for want, wrong := range map[string]Material{
		"ca-key.pem: it is not PEM":                      {Cert: m.Cert, Key: []byte("x")},
		"ca-key.pem: it holds no EC or RSA key":          {Cert: m.Cert, Key: m.Cert},
		"ca-cert.pem: it holds no certificate in PEM":    {Key: m.Key},
		"the key is not that of the certificate":         {Cert: m.Cert, Key: other.Key},
		"chains to none of the roots":                    {Cert: m.Cert, Key: m.Key, Roots: other.Cert},
		"root-cert.pem: it holds no certificate in PEM":  {Cert: m.Cert, Key: m.Key, Roots: []byte("x")},
		"cert-chain.pem: it holds no certificate in PEM": {Cert: m.Cert, Key: m.Key, Chain: []byte("x")},
		"ca-cert.pem: x509: malformed certificate":       {Cert: []byte("-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"), Key: m.Key},
	} {
		if _, err := Parse(wrong); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	twice := parsed(t, Material{Cert: m.Cert, Key: m.Key, Roots: append(append([]byte{}, m.Cert...), m.Cert...)})
	if len(twice.roots) != 1 {
		t.Errorf("%d roots out of one that stands there twice", len(twice.roots))
	}
	leaf, err := twice.issue(&x509.Certificate{}, ecKey(t).Public(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(Material{Cert: encode(leaf), Key: m.Key, Roots: m.Cert}); err == nil {
		t.Error("a leaf was taken for a CA")
	}
}
