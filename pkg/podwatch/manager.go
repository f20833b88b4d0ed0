package podwatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
)

// Enroller makes pods part of the mesh; cmd/node-agent implements it.
type Enroller interface {
	// Enroll captures p and serves its connections. It is not called for a pod
	// that is enrolled.
	Enroll(ctx context.Context, p Pod) (cookie uint64, err error)
	// Remove lets go of an enrolled pod: of its capture where the pod lives on
	// (gone false), of everything where it is gone.
	// An unknown uid is no error.
	Remove(ctx context.Context, uid string, gone bool) error
	// Settle forgets what an earlier run left in the kernel of pods that are not
	// enrolled: all pods that there are have been told, and none failed.
	Settle() error
}

// Options of a [Manager].
type Options struct {
	// Enroller must be non-nil.
	Enroller Enroller
	// Logger must be non-nil.
	Logger *slog.Logger
	// File is where pods are remembered; empty remembers nothing.
	File string
}

// Manager knows the node's pods and keeps their capture as was last asked for.
type Manager struct {
	// Constant after NewManager.
	enroller Enroller
	log      *slog.Logger
	file     *file // or nil
	done     chan struct{}

	// frozen keeps changes out while another agent takes over, and after it has.
	frozen sync.RWMutex
	ended  bool // guarded by frozen

	// settling keeps enrolments out while Settle compares.
	settling sync.RWMutex

	// mu guards below. It is not held while a pod is worked on.
	mu        sync.Mutex
	pods      map[string]*entry
	remembers bool
	complete  bool // done is closed
}

// entry is one pod. Its lock orders the work on it; the Manager's lock guards
// what readers see.
type entry struct {
	work     sync.Mutex
	enrolled bool // guarded by work

	pod    Pod    // guarded by Manager.mu
	status Status // guarded by Manager.mu
	gone   bool   // guarded by Manager.mu
}

// NewManager returns a Manager without pods; call Restore once, then Remember.
func NewManager(o Options) (*Manager, error) {
	if o.Enroller == nil || o.Logger == nil {
		return nil, errors.New("podwatch: Enroller and Logger must be set")
	}
	m := &Manager{enroller: o.Enroller, log: o.Logger, pods: map[string]*entry{}, done: make(chan struct{})}
	if o.File != "" {
		m.file = &file{path: o.File}
	}
	return m, nil
}

// Restore takes over the pods that the agent's last run knew. A pod whose
// namespace is gone is forgotten; one that fails stays known, with its error.
func (m *Manager) Restore(ctx context.Context) error {
	var pods []Pod
	var err error
	if m.file != nil {
		pods, err = m.file.load()
	}
	for _, p := range pods {
		if namespaceGone(p.NetNS) {
			m.log.Info("pod of the last run is gone", "pod", p.Key(), "uid", p.UID)
			continue
		}
		if _, perr := m.Put(ctx, p); perr != nil {
			m.log.Error("pod of the last run not taken over", "pod", p.Key(), "uid", p.UID, "err", perr)
		}
	}
	if len(pods) > 0 {
		m.setComplete()
	}
	return err
}

// Remember keeps the pods that there are, and their changes from here on, in the file.
// It is called after Restore, by who owns the node.
func (m *Manager) Remember() {
	m.mu.Lock()
	m.remembers = true
	m.mu.Unlock()
	m.save()
}

// Complete closes when the agent can know all its pods: it took over those of
// its last run, or was told a snapshot.
func (m *Manager) Complete() <-chan struct{} { return m.done }

func (m *Manager) setComplete() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.complete {
		m.complete = true
		close(m.done)
	}
}

// errEnded says that the pods are another agent's.
var errEnded = errors.New("another agent has taken over")

// Freeze keeps every pod as it is until Thaw: changes wait.
func (m *Manager) Freeze() { m.frozen.Lock() }

// Thaw goes on after Freeze. With ended the pods are another agent's: changes fail.
func (m *Manager) Thaw(ended bool) {
	m.ended = ended
	m.frozen.Unlock()
}

// Put makes p as it says and returns when it is.
func (m *Manager) Put(ctx context.Context, p Pod) (Status, error) {
	m.frozen.RLock()
	defer m.frozen.RUnlock()
	if m.ended {
		return Status{}, errEnded
	}
	e, err := m.entryOf(p)
	if err != nil {
		return Status{}, err
	}
	e.work.Lock()
	defer e.work.Unlock()
	m.mu.Lock()
	if e.gone {
		m.mu.Unlock()
		return Status{}, fmt.Errorf("pod %s was deleted meanwhile", p.Key())
	}
	old, status := e.pod, e.status
	m.mu.Unlock()
	if status.State != "" && status.State != StateFailed && old.Equal(&p) {
		return status, nil
	}
	m.settling.RLock()
	status, err = m.apply(ctx, e, p)
	m.mu.Lock()
	e.pod, e.status = p, status
	m.mu.Unlock()
	m.settling.RUnlock()
	m.save()
	return status, err
}

// apply does the work of Put; e.work is held.
func (m *Manager) apply(ctx context.Context, e *entry, p Pod) (Status, error) {
	failed := func(err error) (Status, error) { return Status{State: StateFailed, Error: err.Error()}, err }
	if e.enrolled {
		if err := m.enroller.Remove(ctx, p.UID, false); err != nil {
			return failed(fmt.Errorf("pod %s: %w", p.Key(), err))
		}
		e.enrolled = false
	}
	if !p.Captured {
		return Status{State: StatePassthrough}, nil
	}
	cookie, err := m.enroller.Enroll(ctx, p)
	if err != nil {
		return failed(fmt.Errorf("enrol pod %s: %w", p.Key(), err))
	}
	e.enrolled = true
	return Status{State: StateEnrolled, Cookie: cookie}, nil
}

func (m *Manager) entryOf(p Pod) (*entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.pods[p.UID]; e != nil {
		return e, nil
	}
	if len(m.pods) >= maxPods {
		return nil, fmt.Errorf("pod %s: the agent knows %d pods already, its limit", p.Key(), maxPods)
	}
	e := &entry{pod: p}
	m.pods[p.UID] = e
	return e, nil
}

// Delete forgets a pod that is gone. An unknown uid is no error.
func (m *Manager) Delete(ctx context.Context, uid string) error {
	m.frozen.RLock()
	defer m.frozen.RUnlock()
	if m.ended {
		return errEnded
	}
	m.mu.Lock()
	e := m.pods[uid]
	m.mu.Unlock()
	if e == nil {
		return nil
	}
	e.work.Lock()
	defer e.work.Unlock()
	m.mu.Lock()
	gone := e.gone
	m.mu.Unlock()
	if gone { // by another call; a pod of that uid may have come since
		return nil
	}
	// Also one that has left the mesh: what it had open may still be carried.
	if err := m.enroller.Remove(ctx, uid, true); err != nil {
		return fmt.Errorf("remove pod %s: %w", uid, err)
	}
	e.enrolled = false
	m.mu.Lock()
	e.gone = true
	if m.pods[uid] == e {
		delete(m.pods, uid)
	}
	m.mu.Unlock()
	m.save()
	return nil
}

// Prune deletes every pod that is not in uids.
func (m *Manager) Prune(ctx context.Context, uids []string) error {
	var errs []error
	for _, e := range m.Pods() {
		if !slices.Contains(uids, e.UID) {
			errs = append(errs, m.Delete(ctx, e.UID))
		}
	}
	errs = append(errs, m.Told())
	return errors.Join(errs...)
}

// Told says that all pods that there are have been told: what else an earlier run
// left in the kernel is forgotten.
func (m *Manager) Told() error {
	err := m.settle()
	m.setComplete()
	return err
}

// settle has the kernel forget pods of earlier runs, unless a pod failed: that
// one may be among them, and must stay refused.
func (m *Manager) settle() error {
	m.settling.Lock()
	defer m.settling.Unlock()
	for _, e := range m.Pods() {
		if e.Status.State == StateFailed {
			return nil
		}
	}
	return m.enroller.Settle()
}

// Pod returns the pod of that uid with its status.
func (m *Manager) Pod(uid string) (Entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.pods[uid]
	if e == nil {
		return Entry{}, false
	}
	return Entry{Pod: e.pod, Status: e.status}, true
}

// Pods returns all pods with their status, ordered by uid.
func (m *Manager) Pods() []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Entry, 0, len(m.pods))
	for _, e := range m.pods {
		all = append(all, Entry{Pod: e.pod, Status: e.status})
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.UID, b.UID) })
	return all
}

// save remembers the pods; while Restore runs nothing is written over what it reads.
func (m *Manager) save() {
	m.mu.Lock()
	skip := m.file == nil || !m.remembers
	m.mu.Unlock()
	if skip {
		return
	}
	if err := m.file.save(m.Pods); err != nil {
		m.log.Error("pods not remembered: a restarted agent has to be told of them", "err", err)
	}
}
