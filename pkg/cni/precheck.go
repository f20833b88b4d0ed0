package cni

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// others are plugins of other meshes, which capture pods as well.
var others = []string{"istio-cni", "linkerd-cni", "kuma-cni", "consul-cni"}

// Precheck returns a sentence for each thing that is wrong with the node's CNI
// configuration for a plugin that is to be chained to it.
func Precheck(confDir string) []string {
	i := &Installer{ConfDir: confDir}
	files, err := i.confFiles()
	if err != nil {
		return []string{fmt.Sprintf("The directory of CNI configurations cannot be read: %v. Set nodeAgent.cni.confDir to the one that the container runtime reads.", err)}
	}
	first := slices.IndexFunc(files, func(f string) bool { return readable(f) == nil })
	if first < 0 {
		return []string{fmt.Sprintf("There is no CNI configuration in %s: the node has no network for pods yet, or its container runtime reads another directory (nodeAgent.cni.confDir).", confDir)}
	}
	var out []string
	b, err := os.ReadFile(files[first])
	if err != nil {
		return []string{err.Error() + "."}
	}
	l, _, err := decode(b)
	if err != nil {
		return []string{fmt.Sprintf("%s: %v.", files[first], err)}
	}
	for _, p := range l.plugins() {
		m, _ := p.(map[string]any)
		if name, _ := m["type"].(string); slices.Contains(others, name) {
			mesh, _, _ := strings.Cut(name, "-")
			out = append(out, fmt.Sprintf("%s chains %s, which captures pods as well: take the entry out, or uninstall %s's CNI agent, which does it.", files[first], name, strings.ToUpper(mesh[:1])+mesh[1:]))
		}
	}
	return out
}
