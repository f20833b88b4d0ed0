package machine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Init is the node's process 1: it keeps the programs running, buries orphans, and
// ends, and the node with it, when its keeper does. It returns only an error.
func Init(path string) error {
	m, err := Read(path)
	if err != nil {
		return err
	}
	if os.Getenv(Lifeline) != "" {
		go EndWith(os.Stdin)
	}
	r := &reaper{ends: map[int]chan syscall.WaitStatus{}}
	go r.run()
	for i, p := range m.Programs {
		s, err := m.prepare(p)
		if err != nil {
			return err
		}
		go r.keep(s)
		if p.Socket == "" {
			continue
		}
		if err := answers(p.Socket); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		for _, image := range m.Images {
			if i > 0 {
				break
			}
			if err := m.importImage(r, image); err != nil {
				return err
			}
		}
	}
	select {}
}

// EndWith ends this process when r does.
func EndWith(r io.Reader) {
	_, _ = io.Copy(io.Discard, r)
	os.Exit(3)
}

// started is what is needed to start a program, once and again.
type started struct {
	Program
	path   string
	log    *os.File
	cgroup *os.File
}

func (m *Machine) prepare(p Program) (*started, error) {
	path, err := exec.LookPath(p.Args[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w (test/kube/setup.sh installs it)", p.Name, err)
	}
	log, err := os.OpenFile(filepath.Join(m.Dir, p.Name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	slice := filepath.Join(unified(), p.Slice)
	if err := os.MkdirAll(slice, 0o755); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	cgroup, err := os.Open(slice)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	return &started{Program: p, path: path, log: log, cgroup: cgroup}, nil
}

// unified is where cgroup v2 is mounted.
func unified() string {
	var s unix.Statfs_t
	if unix.Statfs(cgroups, &s) == nil && s.Type == unix.CGROUP2_SUPER_MAGIC {
		return cgroups
	}
	return filepath.Join(cgroups, "unified")
}

func (m *Machine) importImage(r *reaper, archive string) error {
	s, err := m.prepare(Program{Name: "images", Slice: "system.slice/containerd.service", Args: []string{"ctr", "-n", "k8s.io", "images", "import", archive}})
	if err != nil {
		return err
	}
	end, err := r.start(s)
	if err != nil {
		return fmt.Errorf("import %s: %w", archive, err)
	}
	if status := <-end; status.ExitStatus() != 0 {
		return fmt.Errorf("import %s: ctr ended with %d; images.log says why", archive, status.ExitStatus())
	}
	return nil
}

// answers waits until something listens on a socket.
func answers(socket string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		c, err := net.Dial("unix", socket)
		if err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("does not listen after a minute: %w", err)
		}
	}
}

// reaper waits for every process of the node that has no other parent, and tells
// those who started one.
type reaper struct {
	mu   sync.Mutex
	ends map[int]chan syscall.WaitStatus
}

// start starts a program; its end comes on the channel.
func (r *reaper) start(s *started) (<-chan syscall.WaitStatus, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	defer null.Close()
	end := make(chan syscall.WaitStatus, 1)
	// Held until the process is known: it may have ended by then.
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(s.path, s.Args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{null.Fd(), s.log.Fd(), s.log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(s.cgroup.Fd())},
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	r.ends[pid] = end
	return end, nil
}

// keep starts a program again whenever it ends.
func (r *reaper) keep(s *started) {
	for {
		end, err := r.start(s)
		if err != nil {
			fmt.Fprintln(s.log, "init:", err)
		} else {
			status := <-end
			fmt.Fprintf(s.log, "init: %s ended (%d, signal %d); it is started again\n", s.Name, status.ExitStatus(), status.Signal())
		}
		<-time.After(500 * time.Millisecond)
	}
}

func (r *reaper) run() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.ECHILD) {
			<-time.After(20 * time.Millisecond)
			continue
		}
		if err != nil {
			continue
		}
		r.mu.Lock()
		end := r.ends[pid]
		delete(r.ends, pid)
		r.mu.Unlock()
		if end != nil {
			end <- status
		}
	}
}
