package leader

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
)

// replica takes part in an election, and writes while it leads.
type replica struct {
	*Elector
	writers *atomic.Int32
	stop    context.CancelFunc
	ended   chan struct{}
}

func start(t *testing.T, client *fake.Clientset, name string, writers *atomic.Int32) *replica {
	t.Helper()
	e, err := New(Options{Client: client.CoordinationV1(), Namespace: "istio-system", Identity: name, Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{Elector: e, writers: writers, ended: make(chan struct{})}
	e.Add("write", func(ctx context.Context) error {
		if writers.Add(1) > 1 {
			t.Error("two write at once")
		}
		<-ctx.Done()
		<-time.After(300 * time.Millisecond) // a write under way
		writers.Add(-1)
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	r.stop = cancel
	go func() {
		defer close(r.ended)
		if err := e.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	return r
}

// leading waits for one of them to lead, for at most d.
func leading(t *testing.T, d time.Duration, replicas ...*replica) *replica {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
		for _, r := range replicas {
			if r.Leads() {
				return r
			}
		}
	}
	t.Fatalf("nobody leads after %s", d)
	return nil
}

func TestTheLeaseIsGivenUpWhenALeaderStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, writers := fake.NewClientset(), &atomic.Int32{}
		a := start(t, client, "a", writers)
		leading(t, time.Second, a)
		b := start(t, client, "b", writers)
		<-time.After(30 * time.Second)
		if b.Leads() || !a.Leads() {
			t.Fatal("the lease has passed on without reason")
		}
		changed := a.Changed()
		a.stop()
		leading(t, 3*time.Second, b)
		<-a.ended
		select {
		case <-changed:
		default:
			t.Error("who waits for a change was not told")
		}
		b.stop()
		<-b.ended
		l, err := client.CoordinationV1().Leases("istio-system").Get(t.Context(), Lease, metav1.GetOptions{})
		if err != nil || l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity != "" {
			t.Errorf("the lease is still held: %v", err)
		}
		if writers.Load() != 0 {
			t.Error("a writer is left")
		}
	})
}

func TestADeadLeaderIsFollowedWhenItsLeaseRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		seconds, dead, now := int32(lease.Seconds()), "dead", metav1.NewMicroTime(time.Now())
		_, err := client.CoordinationV1().Leases("istio-system").Create(t.Context(), &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: Lease},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &dead, LeaseDurationSeconds: &seconds, RenewTime: &now, AcquireTime: &now},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		a := start(t, client, "a", &atomic.Int32{})
		<-time.After(lease - time.Second)
		if a.Leads() {
			t.Error("it leads while another may")
		}
		leading(t, 4*time.Second, a)
		a.stop()
		<-a.ended
	})
}

// A leader that cannot reach the API server stops writing before its lease has run out,
// and leads again when it can.
func TestALeaderThatCannotRenewStopsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, writers := fake.NewClientset(), &atomic.Int32{}
		var away atomic.Bool
		client.PrependReactor("*", "leases", func(ktesting.Action) (bool, runtime.Object, error) {
			if away.Load() {
				return true, nil, errors.New("the API server is away")
			}
			return false, nil, nil
		})
		a := start(t, client, "a", writers)
		leading(t, time.Second, a)
		away.Store(true)
		<-time.After(lease - 500*time.Millisecond)
		if a.Leads() || writers.Load() != 0 {
			t.Error("it still writes when another may begin")
		}
		away.Store(false)
		leading(t, 15*time.Second, a)
		a.stop()
		<-a.ended
	})
}

func TestWorkThatFailsBeginsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		e, err := New(Options{Client: client.CoordinationV1(), Namespace: "istio-system", Identity: "a", Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		tries := 0
		e.Add("fail", func(ctx context.Context) error {
			if tries++; tries < 3 {
				return errors.New("no")
			}
			<-ctx.Done()
			return nil
		})
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		if err := e.Run(ctx); err != nil || tries != 3 {
			t.Errorf("%d tries, %v", tries, err)
		}
	})
}

// What a client says of requests and their bodies is not logged, whatever the level.
func TestBodiesAreNotLogged(t *testing.T) {
	q := quiet{slog.NewTextHandler(&strings.Builder{}, &slog.HandlerOptions{Level: slog.Level(-100)})}
	for level, want := range map[slog.Level]bool{slog.LevelWarn: true, slog.LevelInfo: true, slog.LevelDebug: true, slog.LevelDebug - 1: false, -8: false} {
		if got := q.Enabled(t.Context(), level); got != want {
			t.Errorf("level %d: %v", level, got)
		}
	}
}
