package leader

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// Lease is the name of the Lease.
const Lease = "fairlead-leader"

// How the Lease is kept: a dead leader's runs out after lease; one that could not renew
// for renew stops, well before that; each tries every retry.
const (
	lease = 8 * time.Second
	renew = 5 * time.Second
	retry = time.Second
)

// Options of an [Elector]. All must be set.
type Options struct {
	Client    coordinationv1.LeasesGetter
	Namespace string
	// Identity is this replica's name, which no other has: its pod's.
	Identity string
	Registry prometheus.Registerer
	Logger   *slog.Logger
}

// Elector takes part in the election.
type Elector struct {
	o       Options
	work    []work
	gauge   prometheus.Gauge
	started prometheus.Counter

	// mu guards below.
	mu      sync.Mutex
	leads   bool
	changed chan struct{}
}

type work struct {
	name string
	run  func(context.Context) error
}

// New registers its metrics.
func New(o Options) (*Elector, error) {
	if o.Client == nil || o.Namespace == "" || o.Identity == "" || o.Registry == nil || o.Logger == nil {
		return nil, errors.New("leader: all options must be set")
	}
	e := &Elector{
		o: o, changed: make(chan struct{}),
		gauge:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "fairlead_leader", Help: "1 while this replica is the leader."}),
		started: prometheus.NewCounter(prometheus.CounterOpts{Name: "fairlead_leader_terms_total", Help: "How often this replica became the leader."}),
	}
	for _, c := range []prometheus.Collector{e.gauge, e.started} {
		if err := o.Registry.Register(c); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// Add has run be called whenever this replica becomes the leader, with a context that
// ends with its term; run must end soon after. One that fails is called again after a
// second. Call Add before Run.
func (e *Elector) Add(name string, run func(context.Context) error) {
	e.work = append(e.work, work{name, run})
}

// Leads reports whether this replica is the leader.
func (e *Elector) Leads() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leads
}

// Changed is closed when Leads is another. Take it before Leads.
func (e *Elector) Changed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

func (e *Elector) set(leads bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leads = leads
	close(e.changed)
	e.changed = make(chan struct{})
	if leads {
		e.gauge.Set(1)
		e.started.Inc()
		return
	}
	e.gauge.Set(0)
}

// Run takes part until ctx ends, and then gives the Lease up.
func (e *Elector) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := e.candidacy(ctx); err != nil {
			return err
		}
	}
	return nil
}

// candidacy is one wait for the Lease, and the term that follows.
func (e *Elector) candidacy(ctx context.Context) error {
	// The election ends after the work: it is what gives the Lease up.
	election, stop := context.WithCancel(logr.NewContext(context.WithoutCancel(ctx), logr.FromSlogHandler(quiet{e.o.Logger.Handler()})))
	defer stop()
	began := make(chan context.Context, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: e.o.Namespace, Name: Lease}, Client: e.o.Client,
			LockConfig: resourcelock.ResourceLockConfig{Identity: e.o.Identity},
		},
		LeaseDuration: lease, RenewDeadline: renew, RetryPeriod: retry, ReleaseOnCancel: true, Name: Lease,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(term context.Context) { began <- term },
			OnStoppedLeading: func() {},
			OnNewLeader: func(who string) {
				if who != e.o.Identity && who != "" {
					e.o.Logger.Info("another replica leads", "leader", who)
				}
			},
		},
	})
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		elector.Run(election)
	}()
	defer func() { stop(); <-ended }()
	select {
	case <-ctx.Done():
	case <-ended:
	case term := <-began:
		e.lead(ctx, term)
	}
	return nil
}

// lead does the work until ctx or the term ends, and returns when it has ended.
func (e *Elector) lead(ctx, term context.Context) {
	term, cancel := context.WithCancel(term)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	e.set(true)
	e.o.Logger.Info("this replica leads", "identity", e.o.Identity, "lease", e.o.Namespace+"/"+Lease)
	var all sync.WaitGroup
	for _, w := range e.work {
		all.Go(func() { e.keep(term, w) })
	}
	<-term.Done()
	e.set(false)
	all.Wait()
	e.o.Logger.Info("this replica leads no more", "identity", e.o.Identity)
}

func (e *Elector) keep(term context.Context, w work) {
	for term.Err() == nil {
		err := w.run(term)
		if term.Err() != nil {
			return
		}
		e.o.Logger.Error("the leader's work stopped; it begins again", "work", w.name, "err", err)
		select {
		case <-term.Done():
		case <-time.After(retry):
		}
	}
}
