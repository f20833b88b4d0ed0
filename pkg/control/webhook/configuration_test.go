package webhook

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
)

const configurationName = "istio-validator-istio-system"

// config is what a Keeper is to keep, with the name of its one webhook's policy.
type config struct {
	t      *testing.T
	client *fake.Clientset
}

func (c config) get() (policy, bundle string) {
	got, err := c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(c.t.Context(), configurationName, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return string(*got.Webhooks[0].FailurePolicy), string(got.Webhooks[0].ClientConfig.CABundle)
}

func (c config) until(policy, bundle string) {
	c.t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		p, b := c.get()
		if p == policy && b == bundle {
			return
		}
		select {
		case <-deadline:
			c.t.Fatalf("waited in vain for %s and %q; it is %s and %q", policy, bundle, p, b)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestKeeper(t *testing.T) {
	fail := admissionregistrationv1.Fail // as the API server has it where nothing is said
	object := &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: configurationName},
		Webhooks:   []admissionregistrationv1.ValidatingWebhook{{Name: "rev.validation.istio.io", FailurePolicy: &fail}},
	}
	c := config{t, fake.NewClientset(object)}
	var reached atomic.Bool
	var roots atomic.Value
	changed := make(chan struct{})
	roots.Store("one")
	asked := make(chan struct{}, 100)
	k, err := NewKeeper(KeeperOptions{
		Client: c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations(), Name: configurationName, Policy: admissionregistrationv1.Fail,
		Roots: func() []byte { return []byte(roots.Load().(string)) }, RootsChanged: func() <-chan struct{} {
			if roots.Load() == "one" {
				return changed
			}
			return nil
		},
		Proved: func(context.Context) error {
			asked <- struct{}{}
			if reached.Load() {
				return nil
			}
			return errors.New("no endpoints")
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	// Certificates at once; Fail only when the webhook was seen to answer.
	c.until("Ignore", "one")
	<-asked
	if policy, _ := c.get(); policy != "Ignore" {
		t.Errorf("%s before the webhook is reached", policy)
	}
	reached.Store(true)
	c.until("Fail", "one")
	roots.Store("two")
	close(changed)
	c.until("Fail", "two")
	// A configuration that is made anew is proved anew.
	if _, err := c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Update(t.Context(), object, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.until("Fail", "two")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Who wants Ignore has it, without proof.
func TestKeeperIgnores(t *testing.T) {
	fail := admissionregistrationv1.Fail
	c := config{t, fake.NewClientset(&admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: configurationName}, Webhooks: []admissionregistrationv1.ValidatingWebhook{{Name: "w", FailurePolicy: &fail}},
	})}
	k, err := NewKeeper(KeeperOptions{
		Client: c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations(), Name: configurationName, Policy: admissionregistrationv1.Ignore,
		Roots: func() []byte { return []byte("one") }, Proved: func(context.Context) error { return errors.New("it is not asked for") }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if next, err := k.keep(t.Context()); next != 0 || err != nil {
		t.Errorf("again in %s, %v", next, err)
	}
	c.until("Ignore", "one")
}

// What changes without a word of the watch is found, and a decision on what was read is
// not written over what has changed since.
func TestKeeperWithoutWatch(t *testing.T) {
	ignore := admissionregistrationv1.Ignore
	object := &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: configurationName, ResourceVersion: "1"}, Webhooks: []admissionregistrationv1.ValidatingWebhook{{Name: "w", FailurePolicy: &ignore}},
	}
	synctest.Test(t, func(t *testing.T) {
		c := config{t, fake.NewClientset()}
		c.client.PrependWatchReactor("*", func(ktesting.Action) (bool, watch.Interface, error) { return true, watch.NewFake(), nil })
		client := c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
		k, err := NewKeeper(KeeperOptions{
			Client: client, Name: configurationName, Policy: admissionregistrationv1.Fail, Roots: func() []byte { return []byte("one") },
			Proved: func(context.Context) error { return nil }, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		is := func(want string) {
			t.Helper()
			<-time.After(seldom + lastRetry)
			synctest.Wait()
			if policy, _ := c.get(); policy != want {
				t.Errorf("policy %s, want %s", policy, want)
			}
		}
		<-time.After(time.Second)
		if _, err := client.Create(ctx, object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		is("Fail")
		if _, err := client.Update(ctx, object, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		is("Fail")
		stale := object.DeepCopy()
		stale.ResourceVersion = "0"
		if err := k.write(ctx, stale, []byte("old"), admissionregistrationv1.Ignore, false); err == nil {
			t.Error("a decision on what was is written over what is")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
