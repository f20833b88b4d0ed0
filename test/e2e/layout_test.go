package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	labs "github.com/fairlead-mesh/fairlead/pkg/lab"
	"github.com/fairlead-mesh/fairlead/pkg/netns"
	"github.com/fairlead-mesh/fairlead/test/capture"
)

// successor is an agent of the version whose maps have another layout.
type successor struct {
	cmd *exec.Cmd
	log string
}

// succeed starts it beside a node's agent, with that one's command line.
func (l *lab) succeed(t *testing.T, binary, node string) *successor {
	t.Helper()
	n := l.node(t, node)
	proc := filepath.Join("/proc", strconv.Itoa(n.Agent.PID))
	line, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")[1:]
	s := &successor{log: filepath.Join(t.TempDir(), "log")}
	out, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	// Its pages have other ports: in a cluster the two agents are pods of their own.
	s.cmd = exec.Command(binary, append(args, "--admin-address=localhost:16000", "--metrics-address=[::]:16020", "--readiness-address=[::]:16021")...)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	ns, err := netns.Open(n.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Start(s.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.end(syscall.SIGKILL) })
	return s
}

func (s *successor) end(sig syscall.Signal) {
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Signal(sig)
		_ = s.cmd.Wait()
	}
}

func (s *successor) says(t *testing.T, what string) {
	t.Helper()
	eventually(t, "the successor says "+what, func() bool {
		b, err := os.ReadFile(s.log)
		return err == nil && bytes.Contains(b, []byte(what))
	})
}

// TestAgentsOfTwoLayoutsInTheLab replaces each node's agent by one whose maps in the
// kernel have another layout, and back, while connections are made: none fails, nothing
// is said in clear, and nothing is left of the other layout.
func TestAgentsOfTwoLayoutsInTheLab(t *testing.T) {
	needRoot(t)
	build(t)
	binary := filepath.Join(t.TempDir(), "node-agent")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace,nextlayout", "-o", binary, "./cmd/node-agent")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l := newLab(t, twoNodes+namespace("shop", "ambient")+echoPod("shop", "server", "n2")+
		loadPod("shop", "fresh", "n1", "--url", "tcp://server:9000", "--rate", "100", "--concurrency", "8", "--timeout", "3s"))
	eventually(t, "the pods are in the mesh", func() bool {
		return !slices.ContainsFunc(l.view(t).Pods, func(p labs.PodView) bool { return !p.Enrolled })
	})
	l.answersMore(t, "shop/fresh", 100)
	witness, err := capture.Start(l.node(t, "n2").NetNS)
	if err != nil {
		t.Fatal(err)
	}
	before := l.load(t, "shop/fresh")
	pinned := func(node, layout string) {
		t.Helper()
		var got []string
		eventually(t, "nothing but "+layout+" is pinned of "+node, func() bool {
			found, err := os.ReadDir(filepath.Join("/sys/fs/bpf/fairlead", l.node(t, node).Agent.Instance))
			got = nil
			for _, f := range found {
				got = append(got, f.Name())
			}
			return err == nil && slices.Equal(got, []string{"links", "shared", layout})
		})
	}
	for _, node := range []string{"n1", "n2"} {
		first := l.node(t, node).Agent
		next := l.succeed(t, binary, node)
		next.says(t, "this agent owns the node")
		pinned(node, "v2")
		l.answersMore(t, "shop/fresh", 50)
		// The lab starts the first version again when it ends: that takes the node back.
		if err := syscall.Kill(first.PID, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		next.says(t, "another agent owns the node")
		pinned(node, "v1")
		l.answersMore(t, "shop/fresh", 50)
		next.end(syscall.SIGTERM)
		l.answersMore(t, "shop/fresh", 50)
	}
	after := l.load(t, "shop/fresh")
	if after.Failed != before.Failed {
		t.Errorf("%d of %d connections failed", after.Failed-before.Failed, after.OK-before.OK)
	}
	if err := witness.Stop(); err != nil {
		t.Fatal(err)
	}
	if witness.Contains(sent) || witness.Payload(func(p capture.Packet) bool { return p.Destination.Port() == 15008 }) == 0 {
		t.Error("said in clear, or nothing was seen")
	}
	t.Logf("%d connections", after.OK-before.OK)
}
