package podwatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// kernel is an Enroller that keeps a list.
type kernel struct {
	mu       sync.Mutex
	enrolled map[string]Pod
	calls    []string
	fail     error
	settled  int
}

func newKernel() *kernel { return &kernel{enrolled: map[string]Pod{}} }

func (k *kernel) Enroll(_ context.Context, p Pod) (uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, "enrol "+p.UID)
	if k.fail != nil {
		return 0, k.fail
	}
	if _, twice := k.enrolled[p.UID]; twice {
		return 0, errors.New("enrolled twice")
	}
	k.enrolled[p.UID] = p
	return 7, nil
}

func (k *kernel) Remove(_ context.Context, uid string, gone bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, fmt.Sprintf("remove %s gone=%v", uid, gone))
	delete(k.enrolled, uid)
	return nil
}

func (k *kernel) Settle() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.settled++
	return nil
}

func (k *kernel) list() (uids []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for uid := range k.enrolled {
		uids = append(uids, uid)
	}
	slices.Sort(uids)
	return uids
}

func (k *kernel) setFail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = err
}

var discard = slog.New(slog.DiscardHandler)

func newManager(t *testing.T, k *kernel, file string) *Manager {
	t.Helper()
	m, err := NewManager(Options{Enroller: k, Logger: discard, File: file})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Remember()
	return m
}

func testPod(t *testing.T, uid string, captured bool) Pod {
	t.Helper()
	ns := filepath.Join(t.TempDir(), uid)
	if err := os.WriteFile(ns, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return Pod{
		UID: uid, Namespace: "shop", Name: uid, ServiceAccount: "default", NetNS: ns, IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		HostInterface: "veth0", Captured: captured, ProbePorts: []uint16{8080},
	}
}

func serve(t *testing.T, m *Manager) (client *Client, socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "agent.sock")
	s, err := Listen(socket, m, discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	client = NewClient(socket)
	t.Cleanup(func() {
		client.Close()
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return client, socket
}

// A pod's life as its creator tells it, over the socket.
func TestLife(t *testing.T) {
	k := newKernel()
	c, socket := serve(t, newManager(t, k, ""))
	p := testPod(t, "a", true)
	for range 2 { // putting again is nothing
		if s, err := c.Put(t.Context(), p); err != nil || s != (Status{State: StateEnrolled, Cookie: 7}) {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	p.Captured = false
	if s, err := c.Put(t.Context(), p); err != nil || s.State != StatePassthrough {
		t.Fatalf("%+v, %v", s, err)
	}
	p.Captured = true
	if _, err := c.Put(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	p.NetNS = testPod(t, "b", true).NetNS // the sandbox was made anew
	if _, err := c.Put(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	all, err := c.List(t.Context())
	if err != nil || len(all) != 1 || !all[0].Equal(&p) || all[0].Status.State != StateEnrolled {
		t.Fatalf("%+v, %v", all, err)
	}
	for range 2 { // deleting the absent is nothing
		if err := c.Delete(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"enrol a", "remove a gone=false", "enrol a", "remove a gone=false", "enrol a", "remove a gone=true"}
	if diff := cmp.Diff(want, k.calls); diff != "" {
		t.Error(diff)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
}

// What cannot be enrolled is known as failed, and can be tried again.
func TestFailure(t *testing.T) {
	k := newKernel()
	m := newManager(t, k, "")
	c, _ := serve(t, m)
	k.setFail(errors.New("no such device"))
	if _, err := c.Put(t.Context(), testPod(t, "a", true)); err == nil || !strings.Contains(err.Error(), "enrol pod shop/a: no such device") {
		t.Fatalf("got %v", err)
	}
	if all := m.Pods(); len(all) != 1 || all[0].Status.State != StateFailed || all[0].Status.Error == "" {
		t.Fatalf("%+v", all)
	}
	// While one has failed the kernel must not forget any: it may be that one.
	if err := c.Snapshot(t.Context(), []string{"a"}); err != nil || k.settled != 0 {
		t.Fatalf("settled %d times, %v", k.settled, err)
	}
	k.setFail(nil)
	if s, err := c.Put(t.Context(), m.Pods()[0].Pod); err != nil || s.State != StateEnrolled {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := c.Snapshot(t.Context(), []string{"a"}); err != nil || k.settled != 1 {
		t.Fatalf("settled %d times, %v", k.settled, err)
	}
}

func TestSnapshotPrunes(t *testing.T) {
	k := newKernel()
	m := newManager(t, k, "")
	c, _ := serve(t, m)
	select {
	case <-m.Complete():
		t.Fatal("complete before anyone said so")
	default:
	}
	for _, uid := range []string{"a", "b", "c"} {
		if _, err := c.Put(t.Context(), testPod(t, uid, true)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Snapshot(t.Context(), []string{"b", "unknown"}); err != nil {
		t.Fatal(err)
	}
	if got := k.list(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("enrolled %v", got)
	}
	<-m.Complete()
	if err := c.Snapshot(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := k.list(); len(got) != 0 {
		t.Errorf("enrolled %v", got)
	}
}

// A restarted agent takes over the pods that are still there.
func TestRestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state", "pods.json")
	m := newManager(t, newKernel(), file)
	captured, outside, gone := testPod(t, "a", true), testPod(t, "b", false), testPod(t, "c", true)
	for _, p := range []Pod{captured, outside, gone} {
		if _, err := m.Put(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(gone.NetNS); err != nil {
		t.Fatal(err)
	}

	k := newKernel()
	m = newManager(t, k, file)
	<-m.Complete()
	if got := k.list(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("enrolled %v", got)
	}
	var states []string
	for _, e := range m.Pods() {
		states = append(states, e.UID+" "+e.Status.State)
	}
	if diff := cmp.Diff([]string{"a enrolled", "b passthrough"}, states); diff != "" {
		t.Error(diff)
	}

	// One that fails now stays known, for the run after.
	k = newKernel()
	k.fail = errors.New("later")
	_ = newManager(t, k, file)
	k = newKernel()
	_ = newManager(t, k, file)
	if got := k.list(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("enrolled %v", got)
	}
}

// A damaged memory is an error that names the file; what is sound in it is used.
func TestDamagedMemory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pods.json")
	if err := os.WriteFile(file, []byte(`{"pods": [`), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := NewManager(Options{Enroller: newKernel(), Logger: discard, File: file})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Restore(t.Context()); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
}

// The version after this one may have written more of a pod: what is known of it is taken.
func TestMemoryOfALaterVersion(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pods.json")
	first := newManager(t, newKernel(), file)
	if _, err := first.Put(t.Context(), testPod(t, "a", true)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), `"boot"`, `"later":{"x":[1]},"boot"`, 1)
	later := strings.Replace(text, `"uid"`, `"alsoLater":{"y":true},"uid"`, 1)
	if text == string(b) || later == text {
		t.Fatalf("the file has another form: %s", b)
	}
	if err := os.WriteFile(file, []byte(later), 0o600); err != nil {
		t.Fatal(err)
	}
	kernel := newKernel()
	m, err := NewManager(Options{Enroller: kernel, Logger: discard, File: file})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := m.Pods(); len(got) != 1 || got[0].Status.State != StateEnrolled {
		t.Errorf("%+v", got)
	}
}

func TestRefusals(t *testing.T) {
	m := newManager(t, newKernel(), "")
	c, socket := serve(t, m)
	bad := func(edit func(*Pod)) Pod {
		p := testPod(t, "a", true)
		edit(&p)
		return p
	}
	for what, p := range map[string]Pod{
		"namespace":      bad(func(p *Pod) { p.Namespace = "" }),
		"serviceAccount": bad(func(p *Pod) { p.ServiceAccount = "a/b" }),
		"netns":          bad(func(p *Pod) { p.NetNS = "relative" }),
		"ips":            bad(func(p *Pod) { p.IPs = nil }),
		"no address":     bad(func(p *Pod) { p.IPs = []netip.Addr{netip.MustParseAddr("127.0.0.1")} }),
		"hostInterface":  bad(func(p *Pod) { p.HostInterface = "veth-of-more-than-15" }),
		"probePorts":     bad(func(p *Pod) { p.ProbePorts = make([]uint16, 65) }),
	} {
		if _, err := c.Put(t.Context(), p); err == nil || !strings.Contains(err.Error(), strings.Fields(what)[0]) {
			t.Errorf("%s: %v", what, err)
		}
	}
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for _, r := range []struct {
		method, path, body string
		want               int
	}{
		{"PUT", "/v1/pods/a", `{"uid": "b"}`, 400},
		{"PUT", "/v1/pods/a", `{"uid": "a", "colour": "red"}`, 400},
		{"PUT", "/v1/pods/a", `"` + strings.Repeat("x", maxBody), 400},
		{"PUT", "/v1/snapshot", `{}`, 400}, // an empty list must be meant
		{"POST", "/v1/pods/a", `{}`, 405},
		{"GET", "/v1/other", ``, 404},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), r.method, "http://agent"+r.path, strings.NewReader(r.body))
		res, err := web.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != r.want {
			t.Errorf("%s %s: %d %s, want %d", r.method, r.path, res.StatusCode, body, r.want)
		}
	}
	if all := m.Pods(); len(all) != 0 {
		t.Errorf("known: %+v", all)
	}
	if _, err := Listen(socket, m, discard); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("a second agent on the socket: %v", err)
	}
}

// Many callers at once, for the race detector: the last word counts.
func TestConcurrentCallers(t *testing.T) {
	k := newKernel()
	m := newManager(t, k, filepath.Join(t.TempDir(), "pods.json"))
	c, _ := serve(t, m)
	pods := make([]Pod, 8)
	for i := range pods {
		pods[i] = testPod(t, fmt.Sprintf("p%d", i), true)
	}
	var group sync.WaitGroup
	for range 4 {
		for _, p := range pods {
			group.Go(func() { _, _ = c.Put(t.Context(), p) })
			group.Go(func() { _ = c.Delete(t.Context(), p.UID) })
			group.Go(func() { _ = c.Snapshot(t.Context(), []string{p.UID}) })
		}
	}
	group.Wait()
	for _, p := range pods {
		if _, err := c.Put(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if got := k.list(); len(got) != len(pods) {
		t.Errorf("enrolled %v", got)
	}
}

// What is on disk is the agent's that owns the node: one that only restores writes nothing.
func TestMemoryIsWrittenByItsOwner(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pods.json")
	owner := newManager(t, newKernel(), file)
	if _, err := owner.Put(t.Context(), testPod(t, "a", true)); err != nil {
		t.Fatal(err)
	}
	next, err := NewManager(Options{Enroller: newKernel(), Logger: discard, File: file})
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Put(t.Context(), testPod(t, "b", true)); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := next.Put(t.Context(), testPod(t, "c", true)); err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, before) {
		t.Errorf("%s\nwas\n%s\n%v", now, before, err)
	}
	next.Remember()
	if now, err := os.ReadFile(file); err != nil || !bytes.Contains(now, []byte(`"c"`)) {
		t.Errorf("%s, %v", now, err)
	}
}
