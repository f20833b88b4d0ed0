package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/lab/sandbox"
)

// find is the pod that a person means: namespace/pod, pod, deployment, or the
// beginning of a pod's name, as long as it is only one. Called in the loop.
func (l *Lab) find(what string) (*pod, error) {
	namespace, name, found := strings.Cut(what, "/")
	if !found {
		namespace, name = "", what
	}
	var exact, owned, begins []*pod
	for _, p := range l.sortedPods() {
		if p.deleting || (namespace != "" && p.key.Namespace != namespace) {
			continue
		}
		switch {
		case p.key.Name == name:
			exact = append(exact, p)
		case p.owner != nil && p.owner.Name == name:
			owned = append(owned, p)
		case strings.HasPrefix(p.key.Name, name):
			begins = append(begins, p)
		}
	}
	// Of a deployment's pods, or of those of one name in several namespaces, one
	// that is ready, in "default" first.
	slices.SortStableFunc(owned, func(a, b *pod) int { return value(b) - value(a) })
	for _, list := range [][]*pod{exact, owned} {
		if len(list) == 0 {
			continue
		}
		for _, p := range list {
			if p.key.Namespace == "default" {
				return p, nil
			}
		}
		for _, p := range list[1:] {
			if p.key.Namespace != list[0].key.Namespace {
				return nil, fmt.Errorf("%q is in several namespaces: %s and %s", what, list[0].key, p.key)
			}
		}
		return list[0], nil
	}
	switch len(begins) {
	case 1:
		return begins[0], nil
	case 0:
		return nil, fmt.Errorf("no pod %q: `fairlead lab ps` lists them", what)
	}
	return nil, fmt.Errorf("%q is the beginning of several pods: %s, %s", what, begins[0].key, begins[1].key)
}

// entrance is the sandbox of a process that a person wants in a pod, on a node
// ("node/n1"), beside the control plane ("control-plane") or on the fabric
// ("fabric"). Called in the loop.
func (l *Lab) entrance(what, container string) (sandbox.Spec, error) {
	host := func(netns string) (sandbox.Spec, error) {
		cgroup := filepath.Join(l.cgroup, "exec")
		err := sandbox.MakeCgroup(cgroup)
		return sandbox.Spec{Bare: true, NetNS: netns, Cgroup: cgroup, Env: os.Environ()}, err
	}
	if what == "control-plane" {
		return host(l.controlHost.NS().Path())
	}
	if what == "fabric" {
		return host(l.fabric.NS().Path())
	}
	if name, ok := strings.CutPrefix(what, "node/"); ok {
		n := l.nodes[name]
		if n == nil {
			return sandbox.Spec{}, fmt.Errorf("no node %q", name)
		}
		return host(n.host.NS().Path())
	}
	p, err := l.find(what)
	if err != nil {
		return sandbox.Spec{}, err
	}
	if p.netns == "" {
		return sandbox.Spec{}, fmt.Errorf("pod %s %s", p.key, p.reason())
	}
	w := l.newWorker(p)
	w.netns = p.netns
	spec := w.surroundings()
	for i := range p.spec.Containers {
		c := &p.spec.Containers[i]
		if container == "" || c.Name == container {
			spec.Env, spec.Dir = w.environment(c), c.WorkingDir
			return spec, nil
		}
	}
	return sandbox.Spec{}, fmt.Errorf("pod %s has no container %q", p.key, container)
}

// daemon is one of the mesh's processes by its name. Called in the loop.
func (l *Lab) daemon(what string) (*daemon, error) {
	if what == "control-plane" && l.controlPlane != nil {
		return l.controlPlane, nil
	}
	if name, ok := strings.CutPrefix(what, "agent/"); ok {
		if n := l.nodes[name]; n != nil && n.agent != nil {
			return n.agent, nil
		}
	}
	return nil, fmt.Errorf("no process %q: want control-plane, or agent/NODE", what)
}
