package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

var (
	alice = mesh.Identity{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "alice"}
	bob   = mesh.Identity{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "bob"}
	eve   = mesh.Identity{TrustDomain: "other.example", Namespace: "default", ServiceAccount: "eve"}
)

func manager(t *testing.T, ca CA, dir string) *Manager {
	t.Helper()
	m, err := NewManager(Options{CA: ca, Directory: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func TestCertificateIsRenewedAtHalfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := identitytest.New()
		m := manager(t, ca, "")
		defer m.Close()
		m.Acquire(alice)
		first, err := m.Get(t.Context(), alice)
		if err != nil {
			t.Fatal(err)
		}
		changed := m.Changed()
		advance(9 * time.Hour)
		if c, _ := m.Get(t.Context(), alice); c != first {
			t.Error("renewed before two fifths of its life")
		}
		advance(4 * time.Hour)
		second, err := m.Get(t.Context(), alice)
		if err != nil || second == first {
			t.Fatalf("not renewed after half its life: %v", err)
		}
		select {
		case <-changed:
		default:
			t.Error("those who wait for a change were not told")
		}
		if n := ca.Signed(alice); n != 2 {
			t.Errorf("%d certificates were asked for, want 2", n)
		}
	})
}

// A CA dates certificates back by more than a short one lives: it is still asked
// at half of what is left, and never in a loop.
func TestBackdatedCertificateIsRenewedInItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := identitytest.New()
		ca.TTL, ca.Backdate = 12*time.Second, 2*time.Minute
		m := manager(t, ca, "")
		defer m.Close()
		m.Acquire(alice)
		if _, err := m.Get(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		advance(time.Minute)
		if n := ca.Signed(alice); n < 9 || n > 16 {
			t.Errorf("%d certificates of 12 s in a minute, want about 11", n)
		}
		ca.TTL = time.Nanosecond
		before := ca.Signed(alice)
		advance(time.Minute)
		if n := ca.Signed(alice) - before; n > 130 {
			t.Errorf("%d requests in a minute for certificates that have ended", n)
		}
	})
}

// advance lets the fake clock run.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestFailedRenewalKeepsTheCertificateUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := identitytest.New()
		m := manager(t, ca, "")
		defer m.Close()
		m.Acquire(alice)
		first, err := m.Get(t.Context(), alice)
		if err != nil {
			t.Fatal(err)
		}
		ca.Lock()
		ca.Fail = errors.New("the CA is away")
		ca.Unlock()
		advance(23 * time.Hour)
		if c, err := m.Get(t.Context(), alice); c != first || err != nil {
			t.Errorf("certificate not kept: %v", err)
		}
		if s := m.Status(); s[0].Failure == nil {
			t.Error("the status does not say that the renewal fails")
		}
		advance(2 * time.Hour)
		if _, err := m.Get(t.Context(), alice); err == nil || !strings.Contains(err.Error(), "the CA is away") {
			t.Errorf("ended certificate: error %v does not say why", err)
		}
		ca.Lock()
		ca.Fail = nil
		ca.Unlock()
		advance(2 * time.Minute)
		if _, err := m.Get(t.Context(), alice); err != nil {
			t.Errorf("not recovered: %v", err)
		}
	})
}

func TestUnusedIdentityIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := identitytest.New()
		m := manager(t, ca, "")
		defer m.Close()
		m.Acquire(alice)
		m.Acquire(alice)
		m.Release(alice)
		if _, err := m.Get(t.Context(), alice); err != nil {
			t.Errorf("forgotten while in use: %v", err)
		}
		m.Release(alice)
		if _, err := m.Get(t.Context(), alice); err == nil {
			t.Error("still there after the last release")
		}
		advance(30 * time.Hour)
		if n := ca.Signed(alice); n != 1 {
			t.Errorf("renewed %d times without a user", n-1)
		}
	})
}

func TestWrongAnswersOfTheCAAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := identitytest.New()
		ca.As = bob
		m := manager(t, ca, "")
		defer m.Close()
		m.Acquire(alice)
		if c, err := m.Get(t.Context(), alice); err == nil {
			t.Errorf("alice got %v", c.Leaf().URIs)
		}
	})
}

func TestRestartWithoutCA(t *testing.T) {
	dir := tmpfs(t)
	ca := identitytest.New()
	m := manager(t, ca, dir)
	m.Acquire(alice)
	first, err := m.Get(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { files, _ := filepath.Glob(dir + "/*.pem"); return len(files) == 1 })
	m.Close()
	files, _ := filepath.Glob(dir + "/*.pem")
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file has mode %v", info.Mode())
	}

	ca.Fail = errors.New("away")
	again := manager(t, ca, dir)
	again.Acquire(alice)
	c, err := again.Get(t.Context(), alice)
	if err != nil || !c.Leaf().Equal(first.Leaf()) {
		t.Fatalf("restart without CA: %v", err)
	}
	again.Release(alice)
	if files, _ := filepath.Glob(dir + "/*.pem"); len(files) != 0 {
		t.Errorf("the key stays after the last use: %v", files)
	}
}

func TestKeysAreNotWrittenToADisk(t *testing.T) {
	disk, err := os.MkdirTemp(".", "disk")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(disk)
	_, err = NewManager(Options{CA: identitytest.New(), Directory: disk, Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "not on a tmpfs") {
		t.Errorf("got %v", err)
	}
}

// tmpfs is a directory in memory.
func tmpfs(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "identity")
	if err != nil {
		t.Skipf("no tmpfs at /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !condition() {
		select {
		case <-deadline:
			t.Fatal("waited in vain")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// handshake runs client and server over loopback and returns both errors.
func handshake(t *testing.T, client, server *tls.Config) (state tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer conn.Close()
		s := tls.Server(conn, server)
		if serverErr = s.Handshake(); serverErr == nil {
			state = s.ConnectionState()
			_, serverErr = s.Write([]byte("x"))
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := tls.Client(conn, client)
	_, clientErr = io.ReadFull(c, make([]byte, 1))
	<-done
	return state, clientErr, serverErr
}

func TestHandshakes(t *testing.T) {
	ca := identitytest.New()
	m := manager(t, ca, "")
	for _, id := range []mesh.Identity{alice, bob, eve} {
		m.Acquire(id)
	}
	stranger := manager(t, identitytest.New(), "")
	stranger.Acquire(alice)

	plain := m.ClientTLS(alice, []string{bob.String()})
	plain.GetClientCertificate = nil
	resumed := m.ClientTLS(alice, []string{bob.String()})
	old := m.ClientTLS(alice, []string{bob.String()})
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for name, c := range map[string]struct {
		client, server *tls.Config
		ok             bool
	}{
		"who was expected":               {resumed, m.ServerTLS(bob), true},
		"one of several expected":        {m.ClientTLS(alice, []string{alice.String(), bob.String()}), m.ServerTLS(bob), true},
		"not who was expected":           {m.ClientTLS(alice, []string{alice.String()}), m.ServerTLS(bob), false},
		"nobody expected":                {m.ClientTLS(alice, nil), m.ServerTLS(bob), false},
		"client of another trust domain": {m.ClientTLS(eve, []string{bob.String()}), m.ServerTLS(bob), false},
		"client of another root":         {stranger.ClientTLS(alice, []string{bob.String()}), m.ServerTLS(bob), false},
		"server of another root":         {m.ClientTLS(alice, []string{alice.String()}), stranger.ServerTLS(alice), false},
		"client without certificate":     {plain, m.ServerTLS(bob), false},
		"TLS 1.2":                        {old, m.ServerTLS(bob), false},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second comes from the cache of verified chains
				state, clientErr, serverErr := handshake(t, c.client, c.server)
				if ok := clientErr == nil && serverErr == nil; ok != c.ok {
					t.Fatalf("client %v, server %v", clientErr, serverErr)
				}
				if !c.ok {
					continue
				}
				if got := Peer(state); got != alice {
					t.Errorf("peer is %v", got)
				}
				if state.Version != tls.VersionTLS13 || state.CurveID != tls.X25519MLKEM768 || state.DidResume || state.ServerName != "" || state.NegotiatedProtocol != "h2" {
					t.Errorf("agreed on %s, %v, resumed %v, name %q, protocol %q", tls.VersionName(state.Version), state.CurveID, state.DidResume, state.ServerName, state.NegotiatedProtocol)
				}
			}
		})
	}
}

// A root is replaced while both are trusted: certificates of either pass, and
// the old root is forgotten with the last certificate that came with it.
func TestTwoRootsAreTrustedTogether(t *testing.T) {
	older, newer := identitytest.New(), identitytest.New()
	older.Extra = []*x509.Certificate{newer.Root()}
	newer.Extra = []*x509.Certificate{older.Root()}
	before, after := manager(t, older, ""), manager(t, newer, "")
	before.Acquire(alice)
	after.Acquire(bob)
	if _, _, err := handshake(t, before.ClientTLS(alice, []string{bob.String()}), after.ServerTLS(bob)); err != nil {
		t.Errorf("old client, new server: %v", err)
	}
	if _, _, err := handshake(t, after.ClientTLS(bob, []string{alice.String()}), before.ServerTLS(alice)); err != nil {
		t.Errorf("new client, old server: %v", err)
	}
}

// Roots that come with certificates: a client whose first one is on its way waits for it,
// and does not refuse a server whose root it does not know yet.
func TestFirstCertificateIsWaitedFor(t *testing.T) {
	ca := identitytest.New()
	server, client := manager(t, ca, ""), manager(t, ca, "")
	server.Acquire(bob)
	if _, err := server.Get(t.Context(), bob); err != nil {
		t.Fatal(err)
	}
	ca.Lock()
	client.Acquire(alice)
	config := server.ServerTLS(bob)
	get := config.GetCertificate
	config.GetCertificate = func(info *tls.ClientHelloInfo) (*tls.Certificate, error) {
		defer time.AfterFunc(50*time.Millisecond, ca.Unlock) // the client has the server's certificate by then
		return get(info)
	}
	if _, _, err := handshake(t, client.ClientTLS(alice, []string{bob.String()}), config); err != nil {
		t.Error(err)
	}
}

// An answer of the CA that comes after the last release leaves no key behind, nor
// does it replace that of an identity that is in use again.
func TestLateAnswerLeavesNoKey(t *testing.T) {
	dir := tmpfs(t)
	m := manager(t, identitytest.New(), dir)
	kept := func() []string { files, _ := filepath.Glob(dir + "/*"); return files }
	use := func() *entry {
		m.Acquire(alice)
		if _, err := m.Get(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return len(kept()) == 1 && strings.HasSuffix(kept()[0], ".pem") })
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.entries[alice]
	}
	late := use()
	m.Release(alice)
	m.settle(alice, late)
	if files := kept(); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
	use()
	before, err := os.ReadFile(kept()[0])
	if err != nil {
		t.Fatal(err)
	}
	m.settle(alice, late)
	if after, err := os.ReadFile(kept()[0]); err != nil || string(after) != string(before) {
		t.Errorf("the late answer changed the key in use: %v", err)
	}
}

// The file of roots is followed: a new root is trusted beside or instead of the
// old one, and a chain verified before is judged again. A broken file changes nothing.
func TestRootFileIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		older, newer := identitytest.New(), identitytest.New()
		file := filepath.Join(t.TempDir(), "roots.pem")
		write := func(content ...[]byte) {
			t.Helper()
			if err := os.WriteFile(file, slices.Concat(content...), 0o600); err != nil {
				t.Fatal(err)
			}
			advance(2 * rootCheck)
			// The file system's clock is not the fake one.
			if err := os.Chtimes(file, time.Time{}, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		write(older.RootPEM())
		r, err := newRoots(file, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		v := newVerifier(r)
		leaf := func(ca *identitytest.CA) []*x509.Certificate {
			t.Helper()
			key, csr, err := newRequest(alice)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := ca.Sign(t.Context(), alice, csr, 24*time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			c, err := newCertificate(alice, key, answer, nil, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return c.Chain
		}
		check := func(when string, chain []*x509.Certificate, want bool) {
			t.Helper()
			if _, err := v.peer(chain); (err == nil) != want {
				t.Errorf("%s: %v", when, err)
			}
		}
		a, b := leaf(older), leaf(newer)
		check("one root", a, true)
		check("a root not in the file", b, false)
		write(older.RootPEM(), newer.RootPEM())
		check("both", a, true)
		check("both", b, true)
		write([]byte("half a file"))
		check("broken file", a, true)
		check("broken file", b, true)
		write(newer.RootPEM())
		check("old root removed", a, false)
		check("old root removed", b, true)
		advance(25 * time.Hour)
		check("verified, ended since", b, false)
	})
}
