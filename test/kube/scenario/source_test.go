package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/apps"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// answers is the report of `fairlead app load`.
type answers struct {
	Requests, OK int
	Errors       map[string]int
	Answers      map[string]int `json:"counts"`
}

// load runs the load generator in the client's pod.
func load(t *testing.T, m *mesh.Mesh, ns string, args ...string) answers {
	t.Helper()
	out, err := m.Exec(t.Context(), ns, "client", args...)
	var a answers
	if jsonErr := json.Unmarshal([]byte(out), &a); jsonErr != nil {
		t.Fatalf("load: %v (%v): %s", err, jsonErr, out)
	}
	return a
}

// generator is a container that runs the load generator, and says often how it fares.
func generator(name string, args ...string) string {
	command, _ := json.Marshal(append([]string{"fairlead", "app", "load", "--interval", "200ms"}, args...))
	return fmt.Sprintf("  - {name: %s, image: %q, command: %s}\n", name, apps.Tools, command)
}

// soFar is what each such container of a pod has met until now, by its name.
func soFar(t *testing.T, m *mesh.Mesh, ns, pod string) map[string]answers {
	t.Helper()
	all := map[string]answers{}
	mesh.Eventually(t, "a line of each container of "+pod, func() error {
		for line := range strings.Lines(m.Do(t, "-n", ns, "logs", pod, "--all-containers", "--prefix", "--tail=1")) {
			from, text, _ := strings.Cut(line, "] ")
			var a answers
			if err := json.Unmarshal([]byte(text), &a); err != nil {
				return fmt.Errorf("%w: %s", err, line)
			}
			all[from[strings.LastIndexByte(from, '/')+1:]] = a
		}
		if len(all) == 0 {
			return errors.New("none has said anything")
		}
		return nil
	})
	return all
}

// source asks the server from a pod of its own until it is ended.
type source struct {
	*testing.T
	m        *mesh.Mesh
	ns, name string
}

// begin starts a source and waits until it is answered.
func begin(t *testing.T, m *mesh.Mesh, ns, name string, args ...string) *source {
	t.Helper()
	s := &source{t, m, ns, name}
	args = append([]string{"--url", "http://server/", "--timeout", "5s"}, args...)
	m.Apply(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: "+name+"}\nspec:\n  serviceAccountName: client\n  nodeName: n1\n  terminationGracePeriodSeconds: 1\n  containers:\n"+generator("load", args...), "-n", ns)
	m.Do(t, "-n", ns, "wait", "--for=condition=Ready", "pod/"+name, "--timeout=60s")
	s.until(50)
	return s
}

// until waits until it has sent so many requests.
func (s *source) until(n int) answers {
	s.Helper()
	var a answers
	mesh.Eventually(s, fmt.Sprintf("%d requests", n), func() error {
		if a = soFar(s.T, s.m, s.ns, s.name)["load"]; a.Requests < n {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
	return a
}

// end ends it after a hundred requests more, and reports any that failed.
func (s *source) end(what string) {
	s.Helper()
	a := s.until(soFar(s.T, s.m, s.ns, s.name)["load"].Requests + 100)
	s.m.Do(s, "-n", s.ns, "delete", "pod", s.name, "--now", "--wait=false")
	if len(a.Errors) > 0 || a.OK != a.Requests {
		s.Errorf("%s: %+v", what, a)
	} else {
		s.Logf("%s: %d requests, none failed", what, a.Requests)
	}
}

// rolled waits until a workload has been rolled and none of the pods is left that were
// there when it was called; change is what has it rolled. It returns how long it took.
func rolled(t *testing.T, m *mesh.Mesh, ns, object, selector string, change func()) time.Duration {
	t.Helper()
	pods := func() []string {
		return strings.Fields(m.Do(t, "-n", ns, "get", "pods", "-l", selector, "-o", "name"))
	}
	before := pods()
	begin := time.Now()
	change()
	mesh.Eventually(t, "the old pods of "+object+" are gone", func() error {
		if now := pods(); slices.ContainsFunc(before, func(p string) bool { return slices.Contains(now, p) }) {
			return fmt.Errorf("%v, before: %v", now, before)
		}
		return nil
	})
	m.Do(t, "-n", ns, "rollout", "status", object, "--timeout=80s")
	return time.Since(begin).Round(time.Second)
}
