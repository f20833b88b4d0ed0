package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSocketSemantics asks the questions of test/semantics between two pods, on
// one node and across nodes, outside the mesh and inside it. The answers must be
// equal, but for the rows of differences.txt, which are what no proxy
// can keep; a row there that no longer differs fails too.
func TestSocketSemantics(t *testing.T) {
	needRoot(t)
	build(t)
	program := filepath.Join(t.TempDir(), "semantics")
	if out, err := exec.Command("go", "build", "-o", program, "../semantics").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lab := newLab(t, semanticsCluster(program))
	differences := readDifferences(t)
	for _, server := range []string{"same", "cross"} {
		for _, family := range []int{0, 1} {
			plain := lab.ask(t, program, "plain/client", "plain/"+server, family)
			meshed := lab.ask(t, program, "meshed/client", "meshed/"+server, family)
			t.Run(fmt.Sprintf("%s-node/ipv%d", server, 4+2*family), func(t *testing.T) {
				compare(t, plain, meshed, differences)
			})
		}
	}
}

func semanticsCluster(program string) string {
	var yaml strings.Builder
	yaml.WriteString(twoNodes)
	for _, ns := range []string{"plain", "meshed"} {
		mode := "none"
		if ns == "meshed" {
			mode = "ambient"
		}
		yaml.WriteString(namespace(ns, mode))
		for pod, node := range map[string]string{"client": "n1", "same": "n1", "cross": "n2"} {
			fmt.Fprintf(&yaml, "---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: %s}\nspec:\n  nodeName: %s\n  containers: [{name: app, command: [%s, serve, \"[::]:7000\"]}]\n",
				pod, ns, node, program)
		}
	}
	return yaml.String()
}

type answers map[string]string

// ask runs the questions in client against server's pod address of a family.
func (l *lab) ask(t *testing.T, program, client, server string, family int) answers {
	t.Helper()
	ip := l.podIP(t, server, family)
	address := ip + ":7000"
	if strings.Contains(ip, ":") {
		address = "[" + ip + "]:7000"
	}
	out := l.run(t, "lab", "exec", "--name", l.name, client, "--", program, "ask", address)
	found := answers{}
	for line := range strings.Lines(out) {
		name, answer, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if ok {
			found[name] = answer
		}
	}
	if len(found) < 20 {
		t.Fatalf("%s asked %s and got %d answers:\n%s", client, server, len(found), out)
	}
	return found
}

// difference is one row of differences.txt: question, without, with, why.
type difference struct{ question, without, with, why string }

func readDifferences(t *testing.T) []difference {
	t.Helper()
	b, err := os.ReadFile("differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	var rows []difference
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		cells := strings.Split(line, "|")
		if len(cells) != 4 {
			t.Fatalf("differences.txt: %q: want question | without | with | why", line)
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, difference{cells[0], cells[1], cells[2], cells[3]})
	}
	return rows
}

func compare(t *testing.T, plain, meshed answers, differences []difference) {
	t.Helper()
	for question, without := range plain {
		want := without
		if i := slices.IndexFunc(differences, func(d difference) bool { return d.question == question }); i >= 0 {
			d := differences[i]
			if without != d.without {
				t.Errorf("%s: without the mesh: %s, differences.txt says %s", question, without, d.without)
			}
			want = d.with
		}
		if got := meshed[question]; got != want {
			t.Errorf("%s: with the mesh: %s, want %s (without it: %s)", question, got, want, without)
		}
	}
}
