// Package version tells which versions of the mesh are there: this program's, the
// control plane's and the proxies'.
//
// For cmd/fairlead and tests.
package version

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/cli/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// Info is what a build says of itself, with the names that istioctl prints.
type Info struct {
	Version   string `json:"version"`
	Revision  string `json:"revision"`
	GoVersion string `json:"golang_version"`
	Status    string `json:"status"`
	Tag       string `json:"tag"`
}

// Own is this program's.
func Own() Info {
	out := Info{Version: telemetry.Version, Revision: "unknown", GoVersion: runtime.Version(), Status: "Unknown", Tag: telemetry.Version}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return out
	}
	for _, s := range build.Settings {
		switch {
		case s.Key == "vcs.revision":
			out.Revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			out.Status = "Modified"
		case s.Key == "vcs.modified":
			out.Status = "Clean"
		}
	}
	return out
}

// Component is one process of the control plane.
type Component struct {
	Component string `json:"Component"`
	Revision  string `json:"revision"`
	Info      Info   `json:"Info"`
}

// Proxy is a node agent or a waypoint.
type Proxy struct {
	ID      string `json:"ID"`
	Version string `json:"IstioVersion"`
}

// Mesh is all versions that are there. The last two are absent where no cluster was asked.
type Mesh struct {
	Client    Info        `json:"clientVersion"`
	Control   []Component `json:"meshVersion,omitempty"`
	DataPlane []Proxy     `json:"dataPlaneVersion,omitempty"`
}

// Labels by which the mesh's pods are found.
const (
	controlPlane = "app=istiod"
	nodeAgents   = "app=ztunnel"
	waypoints    = "gateway.networking.k8s.io/gateway-class-name=istio-waypoint"
)

// defaultRevision is that of a control plane that names none.
const defaultRevision = "default"

// debugPort is where the control plane's pages are.
const debugPort = 15014

// Ask asks a cluster. What it cannot learn is an error beside what it could.
func (m *Mesh) Ask(ctx context.Context, c *kube.Client, at *controlplane.Flags, istioNamespace string) error {
	failed := m.askControl(ctx, c, at, istioNamespace)
	if len(m.Control) == 0 {
		return failed
	}
	for _, of := range []struct{ namespace, labels string }{{istioNamespace, nodeAgents}, {"", waypoints}} {
		pods, err := c.List(ctx, kube.Pod, of.namespace, of.labels)
		if err != nil {
			return errors.Join(failed, err)
		}
		for _, p := range pods {
			m.DataPlane = append(m.DataPlane, Proxy{p.GetName() + "." + p.GetNamespace(), imageTag(p)})
		}
	}
	return failed
}

// askControl asks the control plane's pods, or the replica that an address leads to.
func (m *Mesh) askControl(ctx context.Context, c *kube.Client, at *controlplane.Flags, istioNamespace string) error {
	if at.Given() {
		answer, err := at.Ask(ctx, c, istioNamespace)
		if err == nil {
			m.Control = append(m.Control, Component{"pilot", defaultRevision, Info{Version: answer.Version, Tag: answer.Version}})
		}
		return err
	}
	pods, err := c.List(ctx, kube.Pod, istioNamespace, controlPlane)
	if err != nil {
		return err
	}
	if len(pods) == 0 {
		return fmt.Errorf("Istio is not present in the cluster: no pod with the label %s runs in namespace %s; %s", controlPlane, istioNamespace, controlplane.Elsewhere) //nolint:staticcheck // istioctl's words
	}
	var failed error
	for _, p := range pods {
		info := Info{Version: imageTag(p)}
		if answer, err := c.Fetch(ctx, "GET", p.GetNamespace(), p.GetName(), debugPort, "/version"); err != nil {
			failed = errors.Join(failed, err)
		} else if err := json.Unmarshal(answer, &info); err != nil {
			failed = errors.Join(failed, fmt.Errorf("version of pod %s: %w", p.GetName(), err))
		}
		revision := p.GetLabels()["istio.io/rev"]
		if revision == "" {
			revision = defaultRevision
		}
		m.Control = append(m.Control, Component{"pilot", revision, info})
	}
	return failed
}

// imageTag is that of a pod's first container: for proxies, the version that they are.
func imageTag(pod *unstructured.Unstructured) string {
	containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
	if len(containers) == 0 {
		return "unknown"
	}
	first, _ := containers[0].(map[string]any)
	image, _ := first["image"].(string)
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[i+1:]
	}
	return "unknown"
}

// Write writes versions as text, or with output "json" or "yaml" as that. Short text
// has one line for each version, and no more of it.
func (m *Mesh) Write(out io.Writer, output string, short bool) error {
	switch output {
	case "":
	case "json":
		raw, err := json.MarshalIndent(m, "", "  ")
		if err == nil {
			_, err = fmt.Fprintln(out, string(raw))
		}
		return err
	case "yaml":
		raw, err := yaml.Marshal(m)
		if err == nil {
			_, err = fmt.Fprintln(out, string(raw))
		}
		return err
	default:
		return errors.New(`--output must be 'yaml' or 'json'`)
	}
	text := func(i Info) string {
		if short {
			return i.Version
		}
		return fmt.Sprintf("%#v", i)
	}
	fmt.Fprintf(out, "client version: %s\n", text(m.Client))
	control := m.Control
	if len(control) > 0 && !slices.ContainsFunc(control, func(c Component) bool { return c.Info.Version != control[0].Info.Version }) {
		control = []Component{{Component: "control plane", Info: control[0].Info}}
	}
	for _, c := range control {
		fmt.Fprintf(out, "%s version: %s\n", c.Component, text(c.Info))
	}
	if len(m.Control) > 0 {
		fmt.Fprintf(out, "data plane version: %s\n", count(m.DataPlane))
	}
	return nil
}

// count is "1.2 (3 proxies), 1.3 (1 proxies)".
func count(all []Proxy) string {
	if len(all) == 0 {
		return "none"
	}
	of := map[string]int{}
	for _, p := range all {
		of[p.Version]++
	}
	var out []string
	for v, n := range of {
		out = append(out, fmt.Sprintf("%s (%d proxies)", v, n))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}
