package hostproc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// Proc is a mounted procfs of the node. Use [Open].
type Proc struct {
	path string
	node string // a process in the node's own namespaces

	// mu guards below.
	mu     sync.Mutex
	first  map[string]string // the first process of each pod, by the pod's uid
	looked time.Time         // when that began to be looked for
}

// Open returns the procfs that is mounted at path; its first process is the node's.
func Open(path string) *Proc { return &Proc{path: path, node: "1"} }

// ErrNoProcess says that a pod has no process yet, or none any more.
var ErrNoProcess = errors.New("no process of the pod runs on this node")

// Path is where this process finds a path of the node's, as it is mounted there now.
func (p *Proc) Path(path string) string { return filepath.Join(p.path, p.node, "root", path) }

// NodeNetNS is the path of the node's network namespace.
func (p *Proc) NodeNetNS() string { return filepath.Join(p.path, p.node, "ns/net") }

// NetNS is a pod's network namespace.
type NetNS struct {
	// Path leads there for as long as the process lives that it was found by.
	Path string
	// Cookie tells whether it is still the one that was found.
	Cookie uint64
}

// podUID finds the pod in the path of a cgroup: pod<uid> of the cgroupfs driver,
// kubepods-burstable-pod<uid with underscores>.slice of systemd's; of a static pod
// the uid is a hash of its manifest.
var podUID = regexp.MustCompile(`pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?:[/:]|$)`)

// uidOf returns the pod of a process's /proc/PID/cgroup, or "". With cgroup v1
// there is a line for each hierarchy; all that name a pod must name the same.
func uidOf(cgroup []byte) string {
	uid := ""
	for line := range bytes.Lines(cgroup) {
		m := podUID.FindSubmatch(bytes.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		found := strings.ReplaceAll(string(m[1]), "_", "-")
		if uid != "" && uid != found {
			return ""
		}
		uid = found
	}
	return uid
}

// Find returns the network namespace of a pod: that of its first process outside of the
// node's own network, which is the sandbox's. Later ones may have made others inside; one in
// the node's network may be the container runtime's, which CRI-O puts beside the containers
// that it watches. Many pods are found by one look at all processes.
func (p *Proc) Find(uid string) (NetNS, error) {
	called := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if pid, ok := p.first[uid]; ok {
		if found, err := p.open(pid, uid); err == nil {
			return found, nil
		}
	}
	if p.looked.Before(called) {
		if err := p.look(); err != nil {
			return NetNS{}, err
		}
	}
	pid, ok := p.first[uid]
	if !ok {
		return NetNS{}, ErrNoProcess
	}
	return p.open(pid, uid)
}

// look finds the first process of each pod. mu is held.
func (p *Proc) look() error {
	began := time.Now()
	entries, err := os.ReadDir(p.path)
	if err != nil {
		return fmt.Errorf("processes of the node: %w", err)
	}
	home, err := os.Readlink(p.NodeNetNS())
	if err != nil {
		return fmt.Errorf("the node's network namespace: %w", err)
	}
	p.first = map[string]string{}
	type rank struct {
		atHome  bool
		started uint64
	}
	ranks := map[string]rank{}
	for _, e := range entries {
		pid := e.Name()
		if pid[0] < '0' || pid[0] > '9' {
			continue
		}
		uid := p.uid(pid)
		if uid == "" {
			continue
		}
		started, err := p.started(pid)
		if err != nil {
			continue // it ended meanwhile
		}
		ns, err := os.Readlink(filepath.Join(p.path, pid, "ns/net"))
		if err != nil {
			continue // so did this
		}
		is, was := rank{ns == home, started}, ranks[uid]
		if _, known := p.first[uid]; !known || is.atHome != was.atHome && was.atHome || is.atHome == was.atHome && is.started < was.started {
			p.first[uid], ranks[uid] = pid, is
		}
	}
	p.looked = began
	return nil
}

func (p *Proc) uid(pid string) string {
	b, err := os.ReadFile(filepath.Join(p.path, pid, "cgroup"))
	if err != nil {
		return ""
	}
	return uidOf(b)
}

// started is field 22 of /proc/PID/stat: ticks since boot.
func (p *Proc) started(pid string) (uint64, error) {
	b, err := os.ReadFile(filepath.Join(p.path, pid, "stat"))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name, in parentheses, and may hold anything.
	_, rest, _ := strings.Cut(string(b[bytes.LastIndexByte(b, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return 0, fmt.Errorf("stat of process %s has %d fields", pid, len(fields))
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// open makes sure that the process was the pod's while its namespace was read: its
// number may be another's by then.
func (p *Proc) open(pid, uid string) (NetNS, error) {
	found := NetNS{Path: filepath.Join(p.path, pid, "ns/net")}
	ns, err := netns.Open(found.Path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return NetNS{}, ErrNoProcess
		}
		return NetNS{}, err
	}
	defer ns.Close()
	if p.uid(pid) != uid {
		return NetNS{}, ErrNoProcess
	}
	if found.Cookie, err = ns.Cookie(); err != nil {
		return NetNS{}, err
	}
	node, err := netns.Open(p.NodeNetNS())
	if err != nil {
		return NetNS{}, err
	}
	defer node.Close()
	home, err := node.Cookie()
	if err != nil {
		return NetNS{}, err
	}
	if home == found.Cookie {
		return NetNS{}, fmt.Errorf("process %s of the pod is in the node's own network namespace", pid)
	}
	return found, nil
}
