package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Options say what a cluster consists of.
type Options struct {
	// Name is in the names of everything the cluster makes on this machine: at
	// most 8 letters and digits. "" is "test".
	Name string
	// Nodes is the number of nodes with kubelet and containerd; without any the API
	// server listens on loopback, and pods stay what they are written as.
	Nodes int
	// Families are the cluster's.
	Families Families
	// Parts is the directory of build.sh's binaries; "" is $FAIRLEAD_PARTS, else the
	// .cache/parts of the repository's main working tree.
	Parts string
	// Images are archives that every node imports (docker-save or OCI layout).
	Images []string
	// Detached lets the cluster outlive this process, until Down.
	Detached bool
}

// Families are the IP families of a cluster: of its nodes, its pods and its services.
type Families string

// The families that a cluster may have.
const (
	IPv4 Families = ""
	IPv6 Families = "ipv6"
	// Dual is IPv6 beside IPv4. Services have IPv6 first; pods of odd nodes have IPv4 first,
	// those of even nodes IPv6.
	Dual Families = "dual"
)

// root is where the clusters' directories lie. It must not be on an overlay: the
// images' snapshots are overlays themselves.
func root() string {
	if dir := os.Getenv("FAIRLEAD_KUBE_DIR"); dir != "" {
		return dir
	}
	return "/tmp/fairlead-kube"
}

var plain = regexp.MustCompile(`^[a-z][a-z0-9]{0,7}$`)

func (o *Options) complete() error {
	if o.Name == "" {
		o.Name = "test"
	}
	if !plain.MatchString(o.Name) {
		return fmt.Errorf("cluster name %q: at most 8 small letters and digits, a letter first", o.Name)
	}
	if o.Nodes < 0 || o.Nodes > 9 {
		return fmt.Errorf("%d nodes: 0 to 9 are possible", o.Nodes)
	}
	if f := o.Families; f != IPv4 && (f != IPv6 && f != Dual || o.Nodes == 0) {
		return fmt.Errorf("IP families %q: ipv6 and dual are possible, where there are nodes", f)
	}
	if o.Nodes > 0 && os.Geteuid() != 0 {
		return fmt.Errorf("nodes need root: network namespaces, mounts and cgroups")
	}
	if o.Parts == "" {
		dir, err := partsDir()
		if err != nil {
			return err
		}
		o.Parts = dir
	}
	return nil
}

// partsDir is the directory of the built parts.
func partsDir() (string, error) {
	if dir := os.Getenv("FAIRLEAD_PARTS"); dir != "" {
		return dir, nil
	}
	out, err := exec.Command("git", "rev-parse", "--path-format=absolute", "--git-common-dir").Output()
	if err != nil {
		return "", fmt.Errorf("no FAIRLEAD_PARTS, and not in the repository: %w", err)
	}
	return filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), ".cache", "parts"), nil
}

// Part is the path of a program that build.sh has built, for tests that run one.
func Part(name string) (string, error) {
	dir, err := partsDir()
	if err != nil {
		return "", err
	}
	return (&Options{Parts: dir}).part(name)
}

// part is the path of a built program.
func (o *Options) part(name string) (string, error) {
	path := filepath.Join(o.Parts, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not built: run `make kube-parts` (%w)", name, err)
	}
	return path, nil
}
