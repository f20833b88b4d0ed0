// Package layers holds the rules of the house: who may import whom, and which
// library belongs to which package. The picture is in ARCHITECTURE.md.
package layers

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/fairlead-mesh/fairlead/"

// level is a package's height; it may import what is strictly below it, and what
// the siblings table allows. Names match a package and everything under it.
var level = map[string]int{
	"pkg/mesh": 0, "pkg/authz": 0, "pkg/message": 0, "pkg/suggest": 0, "api": 0, "deploy": 0,
	"pkg/netns": 1, "pkg/run": 1, "pkg/token": 1, "pkg/telemetry": 1, "pkg/identity": 1, "pkg/kube": 1, "pkg/handover": 1,
	"pkg/idle": 0, "pkg/level": 0, "pkg/lobby": 0, "pkg/turns": 0, "pkg/h1": 1, "pkg/h2": 1, "pkg/hbone": 1, "pkg/relay": 1, "pkg/admin": 1,
	"pkg/xds": 2, "pkg/store": 2, "pkg/sds": 2,
	"pkg/redirect": 3, "pkg/ztunnel": 3, "pkg/waypoint": 3, "pkg/podwatch": 3, "pkg/control": 3, "pkg/ca": 3,
	"pkg/lab": 4, "pkg/cni": 4, "pkg/cli": 4, "pkg/install": 4,
	"cmd": 5, "deploy/images": 5, "deploy/crds": 5,
	"test": 6,
}

// siblings are the imports allowed within one level, each with its reason.
var siblings = map[string][]string{
	"pkg/authz":   {"pkg/mesh"},            // decides on nouns
	"pkg/hbone":   {"pkg/h2", "pkg/relay"}, // CONNECT over h2, relayed
	"pkg/install": {"pkg/cli"},             // the command line's way to a cluster
}

// owners are libraries that only some packages may import.
var owners = map[string]struct {
	packages []string
	why      string
}{
	"github.com/cilium/ebpf":                 {[]string{"pkg/redirect"}, "kernel objects live in redirect"},
	"golang.org/x/net/http2/hpack":           {[]string{"pkg/h2"}, "one HTTP/2 engine"},
	"golang.org/x/net/http2":                 {[]string{"pkg/h2"}, "x/net's Transport and Server are peers in tests only"},
	"k8s.io/client-go":                       {[]string{"pkg/control", "pkg/lab", "pkg/ca/secret", "cmd/control-plane", "pkg/cli", "pkg/install"}, "the data path knows no Kubernetes"},
	"k8s.io/api":                             {[]string{"pkg/control", "pkg/lab", "pkg/token/tokenreview", "pkg/ca/secret", "cmd/control-plane", "pkg/install", "pkg/cli"}, "objects are decoded at the edge"},
	"istio.io/client-go":                     {[]string{"pkg/control", "pkg/lab", "cmd/control-plane", "pkg/cli"}, "objects are decoded at the edge"},
	module + "api":                           {[]string{"pkg/xds", "pkg/control"}, "wire types stop at the edge: past it everything is mesh"},
	"google.golang.org/grpc":                 {[]string{"pkg/xds", "pkg/sds", "pkg/identity", "pkg/control", "pkg/ca", "pkg/cli/controlplane", "cmd/control-plane", "cmd/waypoint"}, "gRPC stays at the edge"},
	"github.com/prometheus":                  {[]string{"pkg/telemetry", "pkg/admin", "pkg/control", "pkg/ca", "pkg/token/tokenreview", "pkg/waypoint/record", "pkg/waypoint/pages", "cmd"}, "engines report through telemetry"},
	"helm.sh/helm":                           {[]string{"pkg/install/chart", "pkg/install/operator"}, "of Helm only what renders the chart, and its reader of --set"},
	"github.com/google/go-containerregistry": {[]string{"deploy/images"}, "images are built beside the product"},
	"github.com/vishvananda/netlink":         {[]string{"pkg/netns", "pkg/redirect", "pkg/lab"}, "devices belong to redirect and the lab"},
}

type goPackage struct {
	ImportPath                         string
	Doc                                string
	Name                               string
	Imports, TestImports, XTestImports []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Name,Doc,Imports,TestImports,XTestImports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages: the test looks at the wrong place", len(all))
	}
	return all
}

func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// room is the entry of level that path lies in.
func room(path string) (string, bool) {
	rel := strings.TrimPrefix(path, module)
	found := ""
	for name := range level {
		if within(rel, name) && len(name) > len(found) {
			found = name
		}
	}
	return found, found != ""
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		from, ok := room(p.ImportPath)
		if !ok {
			t.Errorf("%s has no level: give it one in this test and a line in ARCHITECTURE.md", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module) {
				continue
			}
			to, _ := room(imp)
			if from == to || level[to] < level[from] || slices.Contains(siblings[from], to) {
				continue
			}
			t.Errorf("%s imports %s: imports point down; engines meet in cmd through an interface that the consumer declares", p.ImportPath, imp)
		}
	}
}

func TestNounsUseTheStandardLibraryAlone(t *testing.T) {
	for _, p := range packages(t) {
		if from, _ := room(p.ImportPath); from != "pkg/mesh" && from != "pkg/authz" {
			continue
		}
		for _, imp := range p.Imports {
			if first, _, _ := strings.Cut(imp, "/"); strings.Contains(first, ".") && imp != module+"pkg/mesh" {
				t.Errorf("%s imports %s: nouns and decisions are pure", p.ImportPath, imp)
			}
		}
	}
}

func TestLibrariesHaveOwners(t *testing.T) {
	for _, p := range packages(t) {
		rel := strings.TrimPrefix(p.ImportPath, module)
		if within(rel, "test") || within(rel, "api") {
			continue
		}
		for _, imp := range p.Imports {
			for lib, owner := range owners {
				if !within(imp, strings.TrimSuffix(lib, "/")) {
					continue
				}
				if !slices.ContainsFunc(owner.packages, func(o string) bool { return within(rel, o) }) {
					t.Errorf("%s imports %s, which belongs to %v: %s", p.ImportPath, imp, owner.packages, owner.why)
				}
			}
		}
	}
}

func TestNothingImportsTests(t *testing.T) {
	for _, p := range packages(t) {
		if from, _ := room(p.ImportPath); from == "test" {
			continue
		}
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, module+"test/") {
				t.Errorf("%s imports %s", p.ImportPath, imp)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, p := range packages(t) {
		if within(strings.TrimPrefix(p.ImportPath, module), "api") || p.Name == "" {
			continue
		}
		if p.Doc == "" && len(p.Imports) > 0 {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}
