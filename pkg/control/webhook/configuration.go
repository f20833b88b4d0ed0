package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	typed "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
)

// FieldManager owns what is written of the configuration.
const FieldManager = "fairlead-webhook"

const (
	// firstRetry and lastRetry bound the time between two tries of what failed: each is one
	// question, and objects go unchecked meanwhile. often is how soon it is looked again
	// whether the API server reaches the webhook, and seldom whether all is as it should
	// be: a watch that says nothing may be one whose connection is gone.
	firstRetry, lastRetry = 500 * time.Millisecond, 5 * time.Second
	often, seldom         = 2 * time.Second, 10 * time.Second
	// maxAsk bounds one question to the API server.
	maxAsk = 15 * time.Second
)

// KeeperOptions are those of a Keeper. All are needed but RootsChanged.
type KeeperOptions struct {
	Client typed.ValidatingWebhookConfigurationInterface
	// Name is the ValidatingWebhookConfiguration's. Where there is none, nothing is kept.
	Name string
	// Roots are the certificates, in PEM, that the webhook's certificate is known by; nil:
	// there are none yet. RootsChanged is closed when they are others; nil: they never are.
	Roots        func() []byte
	RootsChanged func() <-chan struct{}
	// Policy is what the API server does when no webhook answers, once one has.
	Policy admissionregistrationv1.FailurePolicyType
	// Proved asks the API server for something that a webhook refuses, and returns nil if
	// it was refused so.
	Proved func(ctx context.Context) error
	Logger *slog.Logger
}

// Answered is the annotation of a configuration whose webhook the API server was seen to
// ask.
const Answered = "fairlead.dev/webhook-answered"

// Keeper keeps a ValidatingWebhookConfiguration: certificates and failure policy. Until
// the API server has been seen to ask the webhook, the policy is Ignore: Fail would keep
// everyone from writing what nobody can check.
type Keeper struct {
	o    KeeperOptions
	said string
}

// NewKeeper makes a Keeper that keeps nothing yet.
func NewKeeper(o KeeperOptions) (*Keeper, error) {
	if o.Client == nil || o.Name == "" || o.Roots == nil || o.Policy == "" || o.Proved == nil || o.Logger == nil {
		return nil, errors.New("webhook's configuration: a client, a name, roots, a policy, a proof and a logger are needed")
	}
	if o.RootsChanged == nil {
		o.RootsChanged = func() <-chan struct{} { return nil }
	}
	return &Keeper{o: o}, nil
}

// Run keeps the configuration until ctx ends. One caller at a time may run it.
func (k *Keeper) Run(ctx context.Context) error {
	changes, stop := k.watch(ctx)
	defer stop()
	wait := firstRetry
	for {
		rootsChanged := k.o.RootsChanged()
		next, err := k.keep(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			k.say("the webhook's configuration is not as it should be; trying again", err)
			next, wait = wait, min(2*wait, lastRetry)
		default:
			wait = firstRetry
		}
		if next == 0 {
			next = seldom
		}
		select {
		case <-ctx.Done():
			return nil
		case <-rootsChanged:
		case <-changes:
		case <-time.After(next):
		}
	}
}

// say logs a failure once.
func (k *Keeper) say(message string, err error) {
	if text := err.Error(); k.said != text {
		k.said = text
		k.o.Logger.Warn(message, "configuration", k.o.Name, "err", err)
	}
}

// watch tells of changes of the configuration, and, as watches end, now and then without.
func (k *Keeper) watch(ctx context.Context) (changes <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	out, done := make(chan struct{}, 1), make(chan struct{})
	tell := func() {
		select {
		case out <- struct{}{}:
		default: // it is told
		}
	}
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			w, err := k.o.Client.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + k.o.Name})
			if err == nil {
				tell() // of what was missed
				follow(ctx, w, tell)
			}
			select {
			case <-ctx.Done():
			case <-time.After(often):
			}
		}
	}()
	return out, func() { cancel(); <-done }
}

func follow(ctx context.Context, w watch.Interface, tell func()) {
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case _, more := <-w.ResultChan():
			if !more {
				return
			}
			tell()
		}
	}
}

// keep makes the configuration what it should be now. It returns how soon it is to be
// looked at again, or 0.
func (k *Keeper) keep(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, maxAsk)
	defer cancel()
	roots := k.o.Roots()
	if len(roots) == 0 {
		return often, nil
	}
	c, err := k.o.Client.Get(ctx, k.o.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return 0, nil // nobody wants one
	}
	if err != nil {
		return 0, err
	}
	if k.o.Policy == admissionregistrationv1.Ignore {
		return 0, k.write(ctx, c, roots, admissionregistrationv1.Ignore, false)
	}
	if c.Annotations[Answered] != "" {
		return 0, k.write(ctx, c, roots, k.o.Policy, true)
	}
	if err := k.write(ctx, c, roots, admissionregistrationv1.Ignore, false); err != nil {
		return 0, err
	}
	if err := k.o.Proved(ctx); err != nil {
		k.say("the API server was not seen to ask the webhook, so that writes without it are not refused yet", err)
		return often, nil
	}
	if c, err = k.o.Client.Get(ctx, k.o.Name, metav1.GetOptions{}); err != nil {
		return 0, err
	}
	if err := k.write(ctx, c, roots, k.o.Policy, true); err != nil {
		return 0, err
	}
	k.said = ""
	k.o.Logger.Info("the webhook answers; what happens when none does is set", "configuration", k.o.Name, "failurePolicy", k.o.Policy)
	return 0, nil
}

// operation is one of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// write patches what differs, and nothing else.
func (k *Keeper) write(ctx context.Context, c *admissionregistrationv1.ValidatingWebhookConfiguration, roots []byte, policy admissionregistrationv1.FailurePolicyType, answered bool) error {
	var patch []operation
	for i, w := range c.Webhooks {
		// Another's webhook of the same place would not be moved unseen.
		patch = append(patch, operation{"test", fmt.Sprintf("/webhooks/%d/name", i), w.Name})
		if !bytes.Equal(w.ClientConfig.CABundle, roots) {
			patch = append(patch, operation{"add", fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), roots})
		}
		if w.FailurePolicy == nil || *w.FailurePolicy != policy {
			patch = append(patch, operation{"add", fmt.Sprintf("/webhooks/%d/failurePolicy", i), policy})
		}
	}
	switch {
	case !answered || c.Annotations[Answered] != "":
	case c.Annotations == nil:
		patch = append(patch, operation{"add", "/metadata/annotations", map[string]string{Answered: "true"}})
	default:
		patch = append(patch, operation{"add", "/metadata/annotations/" + strings.ReplaceAll(Answered, "/", "~1"), "true"})
	}
	if !slices.ContainsFunc(patch, func(o operation) bool { return o.Op == "add" }) {
		return nil
	}
	if c.ResourceVersion != "" {
		// What was read may be another by now: then what to write is thought out anew.
		patch = append(patch, operation{"test", "/metadata/resourceVersion", c.ResourceVersion})
	}
	text, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	if _, err = k.o.Client.Patch(ctx, k.o.Name, types.JSONPatchType, text, metav1.PatchOptions{FieldManager: FieldManager}); err != nil {
		return fmt.Errorf("patch the webhook's configuration: %w", err)
	}
	return nil
}
