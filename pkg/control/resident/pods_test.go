package resident

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/fairlead-mesh/fairlead/pkg/ca"
	"github.com/fairlead-mesh/fairlead/pkg/token"
)

var _ ca.Pods = (*Pods)(nil)

func pod(name, uid, node, account string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(uid)},
		Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: account}, Status: corev1.PodStatus{Phase: phase},
	}
}

// cluster is what the API server has and what is followed of it.
type cluster struct {
	client   *fake.Clientset
	followed []*corev1.Pod
	fail     error
}

func newCluster(t *testing.T, objects ...runtime.Object) (*Pods, *cluster) {
	t.Helper()
	c := &cluster{client: fake.NewClientset(objects...)}
	// The fake knows no field selectors.
	c.client.PrependReactor("list", "pods", func(a ktesting.Action) (bool, runtime.Object, error) {
		list, _ := a.(ktesting.ListAction)
		if got, want := list.GetListRestrictions().Fields.String(), fields.OneTermEqualSelector("spec.nodeName", "n1").String(); got != want {
			return true, nil, fmt.Errorf("asked for pods with %s, not %s", got, want)
		}
		return c.fail != nil, nil, c.fail
	})
	c.client.PrependReactor("get", "pods", func(ktesting.Action) (bool, runtime.Object, error) { return c.fail != nil, nil, c.fail })
	p, err := New(Options{Followed: func() []*corev1.Pod { return c.followed }, Client: c.client.CoreV1(), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return p, c
}

func TestWhoIsOnANode(t *testing.T) {
	p, c := newCluster(t, pod("new", "u9", "n1", "late", corev1.PodPending))
	c.followed = []*corev1.Pod{
		pod("a", "u1", "n1", "web", corev1.PodRunning), pod("b", "u2", "n2", "db", corev1.PodRunning), pod("c", "u3", "n1", "job", corev1.PodSucceeded),
		pod("d", "u4", "n1", "broken", corev1.PodFailed), pod("e", "u5", "n1", "", corev1.PodRunning), pod("f", "u6", "", "waiting", corev1.PodPending),
	}
	for account, want := range map[string]bool{
		"web": true, "db": false, "job": false, "broken": false, "default": true, "waiting": false, "nobody": false,
		"late": true, // the API server knows it alone
	} {
		if got, err := p.OnNode(t.Context(), "n1", "shop", account); err != nil || got != want {
			t.Errorf("%s on n1: %v, %v", account, got, err)
		}
	}
	if got, _ := p.OnNode(t.Context(), "n1", "other", "web"); got {
		t.Error("an account of the same name in another namespace is on n1")
	}
}

func TestWhichPodExists(t *testing.T) {
	p, c := newCluster(t, pod("a", "u1", "n1", "web", corev1.PodRunning), pod("again", "u8", "n1", "web", corev1.PodRunning))
	c.followed = []*corev1.Pod{pod("a", "u1", "n1", "web", corev1.PodRunning), pod("again", "u7", "n1", "web", corev1.PodRunning), pod("old", "u2", "n1", "web", corev1.PodFailed)}
	caller := token.Caller{Namespace: "shop", ServiceAccount: "web", Pod: "a", PodUID: "u1", Node: "n1"}
	change := func(f func(*token.Caller)) token.Caller { c := caller; f(&c); return c }
	for name, c := range map[string]struct {
		caller token.Caller
		want   bool
	}{
		"itself":                   {caller, true},
		"one of its name before":   {change(func(c *token.Caller) { c.PodUID = "u0" }), false},
		"on another node":          {change(func(c *token.Caller) { c.Node = "n2" }), false},
		"of another account":       {change(func(c *token.Caller) { c.ServiceAccount = "db" }), false},
		"one that is gone":         {change(func(c *token.Caller) { c.Pod = "gone" }), false},
		"one that has failed":      {change(func(c *token.Caller) { c.Pod, c.PodUID = "old", "u2" }), false},
		"one made again just now":  {change(func(c *token.Caller) { c.Pod, c.PodUID = "again", "u8" }), true},
		"in another namespace too": {change(func(c *token.Caller) { c.Namespace = "other" }), false},
	} {
		if got, err := p.Exists(t.Context(), c.caller); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// What is followed is looked at anew before the answer is no, and within a second
// when it is yes.
func TestChangesAreSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := newCluster(t)
		c.followed = []*corev1.Pod{pod("a", "u1", "n1", "web", corev1.PodRunning)}
		if got, _ := p.OnNode(t.Context(), "n1", "shop", "web"); !got {
			t.Fatal("not there")
		}
		c.followed = []*corev1.Pod{pod("b", "u2", "n1", "db", corev1.PodRunning)}
		if got, _ := p.OnNode(t.Context(), "n1", "shop", "db"); !got {
			t.Error("a pod that came is not seen at once")
		}
		c.followed = nil
		<-time.After(lag)
		if got, _ := p.OnNode(t.Context(), "n1", "shop", "db"); got {
			t.Error("a pod that went is still there after a second")
		}
		if n := len(c.client.Actions()); n != 1 {
			t.Errorf("the API server was asked %d times, want once, about the pod that went", n)
		}
	})
}

func TestTheAPIServerIsNotAskedWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := newCluster(t)
		limited := 0
		for i := range 1_000 {
			if _, err := p.OnNode(t.Context(), "n1", "shop", fmt.Sprint("nobody", i%500)); errors.Is(err, ErrTooMany) {
				limited++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if n := len(c.client.Actions()); n != nodeAtOnce || limited < 900 {
			t.Errorf("asked %d times, %d refused", n, limited)
		}
		// Another node is not held up, and this one not for long.
		if _, err := p.Exists(t.Context(), token.Caller{Namespace: "shop", Pod: "x", PodUID: "u", Node: "n2"}); err != nil {
			t.Error(err)
		}
		<-time.After(2 * time.Second)
		if _, err := p.OnNode(t.Context(), "n1", "shop", "somebody"); err != nil {
			t.Error(err)
		}
		// An answer is kept for a few seconds, a failure is not.
		c.fail = errors.New("the API server is away")
		if got, err := p.OnNode(t.Context(), "n1", "shop", "somebody"); got || err != nil {
			t.Errorf("%v, %v", got, err)
		}
		<-time.After(keptFor)
		if _, err := p.OnNode(t.Context(), "n1", "shop", "somebody"); !errors.Is(err, c.fail) {
			t.Errorf("%v", err)
		}
		c.fail = nil
		if _, err := p.OnNode(t.Context(), "n1", "shop", "somebody"); err != nil {
			t.Error(err)
		}
	})
}
