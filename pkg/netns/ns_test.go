package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// fresh makes a namespace that is gone after the test.
func fresh(t *testing.T) (*NS, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	name := fmt.Sprintf("nstest-%d-%s", os.Getpid(), strings.ToLower(t.Name()))
	ns, err := New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = ns.Close()
		if err := Delete(name); err != nil {
			t.Error(err)
		}
	})
	return ns, name
}

func interfaces() (names []string, err error) {
	all, err := net.Interfaces()
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names, err
}

func TestDoRunsInsideAndComesBack(t *testing.T) {
	ns, _ := fresh(t)
	var inside []string
	if err := ns.Do(func() (err error) { inside, err = interfaces(); return err }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(inside, []string{"lo"}) {
		t.Errorf("devices inside: %v, want only lo", inside)
	}
	want, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	// Every thread of the process is home again, whichever ran fn.
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			_ = ns.Do(func() error { return nil })
			got, err := os.Readlink("/proc/thread-self/ns/net")
			if err != nil || got != want {
				t.Errorf("after Do a thread is in %s (%v), want %s", got, err, want)
			}
		})
	}
	wg.Wait()
}

func TestDoReturnsTheFunctionsError(t *testing.T) {
	ns, _ := fresh(t)
	want := errors.New("no")
	if err := ns.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
	if err := ns.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("a function that never returned gave no error")
	}
}

func TestSocketKeepsItsNamespace(t *testing.T) {
	ns, _ := fresh(t)
	cookie, err := ns.Cookie()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if err := ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	got, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil || got != cookie {
		t.Errorf("socket used outside has cookie %d (%v), want %d", got, err, cookie)
	}
}

func TestCookiesDiffer(t *testing.T) {
	ns, _ := fresh(t)
	home, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	a, errA := ns.Cookie()
	b, errB := home.Cookie()
	if errA != nil || errB != nil || a == b || a == 0 {
		t.Errorf("cookies %d (%v) and %d (%v)", a, errA, b, errB)
	}
}

func TestStartedChildIsBornInside(t *testing.T) {
	ns, _ := fresh(t)
	var out strings.Builder
	cmd := exec.Command("readlink", "/proc/self/ns/net")
	cmd.Stdout = &out
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	inode, err := ns.Inode()
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("net:[%d]", inode); strings.TrimSpace(out.String()) != want {
		t.Errorf("child runs in %q, want %q", out.String(), want)
	}
}

func TestNamesAreThoseOfIproute(t *testing.T) {
	_, name := fresh(t)
	names, err := List()
	if err != nil || !slices.Contains(names, name) {
		t.Fatalf("List: %v (%v), want %s among them", names, err, name)
	}
	if ip, err := exec.LookPath("ip"); err == nil {
		out, err := exec.Command(ip, "netns", "exec", name, "ip", "-o", "link").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "lo:") {
			t.Errorf("ip netns exec: %v: %s", err, out)
		}
	}
	if _, err := New(name); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second namespace of the same name: %v", err)
	}
}

func TestDeleteOfTheAbsent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := Delete(fmt.Sprintf("nstest-%d-absent", os.Getpid())); err != nil {
		t.Error(err)
	}
}

func TestNamesAreCheckedAndPlainFilesRefused(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "/etc"} {
		if _, err := New(name); err == nil {
			t.Errorf("New(%q) succeeded", name)
		}
		if err := Delete(name); err == nil {
			t.Errorf("Delete(%q) succeeded", name)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil {
		t.Error("a plain file opened as a namespace")
	}
}

func TestClosedHandleSaysSo(t *testing.T) {
	ns, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	_ = ns.Close()
	if err := ns.Do(func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func BenchmarkDo(b *testing.B) {
	ns, err := Current()
	if err != nil {
		b.Fatal(err)
	}
	defer ns.Close()
	for b.Loop() {
		if err := ns.Do(func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// Whoever is inside other namespaces at the moment, on whichever threads, the caller's own is
// the one that it is in.
func TestCurrentIsTheCallers(t *testing.T) {
	ns, _ := fresh(t)
	inode := func() uint64 {
		t.Helper()
		c, err := Current()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		i, err := c.Inode()
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	home, inside := inode(), uint64(0)
	if err := ns.Do(func() error { inside = inode(); return nil }); err != nil {
		t.Fatal(err)
	}
	if want, err := ns.Inode(); err != nil || inside != want || inside == home {
		t.Errorf("inside it is %d, want %d (%v), not home's %d", inside, want, err, home)
	}
	var group sync.WaitGroup
	stop := make(chan struct{})
	for range 4 * runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = ns.Do(func() error { runtime.Gosched(); return nil })
				}
			}
		})
	}
	for range 2000 {
		if got := inode(); got != home {
			t.Errorf("outside it is %d, want home's %d", got, home)
			break
		}
	}
	close(stop)
	group.Wait()
}
