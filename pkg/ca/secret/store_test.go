package secret

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/ca"
)

const namespace = "istio-system"

// replica is one control plane's part.
type replica struct {
	store  *Store
	holder *ca.Holder
}

func open(t *testing.T, secrets typedcorev1.SecretInterface) (*replica, error) {
	t.Helper()
	h, err := ca.NewHolder(ca.HolderOptions{Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Options{Secrets: secrets, Namespace: namespace, TrustDomain: "cluster.local", Holder: h, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	s.retry, s.look = 10*time.Millisecond, time.Hour
	return &replica{s, h}, nil
}

// run follows the Secrets until the test ends, or stop is called.
func (r *replica) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.store.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// roots waits until r publishes exactly these.
func (r *replica) roots(t *testing.T, want ...[]byte) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		changed := r.holder.Changed()
		if bytes.Equal(r.holder.Current().RootsPEM(), bytes.Join(want, nil)) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("other roots are published")
		}
	}
}

func generate(t *testing.T) ca.Material {
	t.Helper()
	m, err := ca.Generate("cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func secretOf(name string, m ca.Material) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Data: map[string][]byte{
		certKey: m.Cert, keyKey: m.Key, chainKey: m.Chain, rootsKey: m.Roots,
	}}
}

func TestReplicasThatStartTogetherHaveOneRoot(t *testing.T) {
	secrets := fake.NewClientset().CoreV1().Secrets(namespace)
	var all sync.WaitGroup
	replicas := make([]*replica, 8)
	for i := range replicas {
		all.Go(func() {
			var err error
			if replicas[i], err = open(t, secrets); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	for _, r := range replicas[1:] {
		if !r.holder.Current().Equal(replicas[0].holder.Current()) {
			t.Fatal("two roots")
		}
	}
	kept, err := secrets.Get(t.Context(), Own, metav1.GetOptions{})
	if err != nil || kept.Type != ownType || len(kept.Data[certKey]) == 0 || len(kept.Data[keyKey]) == 0 {
		t.Errorf("%v of type %s, %v", kept.Name, kept.Type, err)
	}
	// And after a restart.
	again, err := open(t, secrets)
	if err != nil || !again.holder.Current().Equal(replicas[0].holder.Current()) {
		t.Errorf("another root after a restart: %v", err)
	}
}

func TestAPluggedInCAGoesFirstAndIsFollowed(t *testing.T) {
	first, second := generate(t), generate(t)
	both := append(append([]byte{}, first.Cert...), second.Cert...)
	secrets := fake.NewClientset(secretOf(PluggedIn, first), secretOf(Own, generate(t))).CoreV1().Secrets(namespace)
	r, err := open(t, secrets)
	if err != nil {
		t.Fatal(err)
	}
	stop := r.run(t)
	r.roots(t, first.Cert)
	update := func(m ca.Material) {
		t.Helper()
		if _, err := secrets.Update(t.Context(), secretOf(PluggedIn, m), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	update(ca.Material{Cert: first.Cert, Key: first.Key, Roots: both})
	r.roots(t, both)
	// A mistake in between changes nothing.
	update(ca.Material{Cert: second.Cert, Key: first.Key, Roots: both})
	update(ca.Material{Cert: second.Cert, Key: second.Key, Roots: second.Cert})
	r.roots(t, second.Cert)
	// Nor does a deletion.
	stop()
	before := r.holder.Current()
	if err := secrets.Delete(t.Context(), PluggedIn, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, name, err := r.store.now(t.Context()); err == nil || name != PluggedIn || !strings.Contains(err.Error(), "put it back") {
		t.Errorf("%s: %v", name, err)
	}
	if r.holder.Current() != before {
		t.Error("another CA signs since the Secret is gone")
	}
}

func TestTheRootsSecretIsPutBack(t *testing.T) {
	secrets := fake.NewClientset().CoreV1().Secrets(namespace)
	r, err := open(t, secrets)
	if err != nil {
		t.Fatal(err)
	}
	before, err := secrets.Get(t.Context(), Own, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := secrets.Delete(t.Context(), Own, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.store.read(t.Context())
	after, err := secrets.Get(t.Context(), Own, metav1.GetOptions{})
	if err != nil || !bytes.Equal(after.Data[keyKey], before.Data[keyKey]) || after.Type != ownType {
		t.Errorf("not put back as it was: %v", err)
	}
}

func TestAWrongSecretIsNoReasonForAnotherRoot(t *testing.T) {
	m := generate(t)
	for want, s := range map[string]*corev1.Secret{
		"Secret istio-system/cacerts: it is wrong: the key is not that of the certificate": secretOf(PluggedIn, ca.Material{Cert: m.Cert, Key: generate(t).Key}),
		"Secret istio-system/istio-ca-secret: it is wrong: ca-key.pem: it is not PEM":      secretOf(Own, ca.Material{}),
	} {
		client := fake.NewClientset(s)
		if _, err := open(t, client.CoreV1().Secrets(namespace)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
		for _, a := range client.Actions() {
			if a.GetVerb() != "get" {
				t.Errorf("%s of %s", a.GetVerb(), a.GetResource().Resource)
			}
		}
	}
}

// cert-manager writes tls.crt, tls.key and ca.crt.
func TestASecretOfCertManager(t *testing.T) {
	m := generate(t)
	root := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: PluggedIn, Namespace: namespace}, Data: map[string][]byte{
		corev1.TLSCertKey: m.Cert, corev1.TLSPrivateKeyKey: m.Key, tlsRootsKey: m.Cert,
	}}
	r, err := open(t, fake.NewClientset(root).CoreV1().Secrets(namespace))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(r.holder.Current().RootsPEM())
	if c, err := x509.ParseCertificate(block.Bytes); err != nil || !c.IsCA {
		t.Error(err)
	}
}
