// Package page runs the commands that a page of the docs shows: its blocks of shell, one by one
// or all in order. Tests under test/kube import it.
package page

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

// Page is a page with its blocks of shell.
type Page struct {
	// Dir is where its commands run; programs that are put there are found first.
	Dir string
	// Sections are the headings that have blocks, in order; what comes before the
	// first heading is under "".
	Sections []string
	// Blocks are the blocks of a section.
	Blocks map[string][]string

	file string
	env  []string
	ran  []string
	// netns is where commands run; empty: where the test does.
	netns string
}

// Beside has the commands that come run on the machine beside the cluster's nodes, where
// [cluster.Cluster.Beside] starts programs.
func (p *Page) Beside(c *cluster.Cluster) {
	p.netns = c.BesideNetNS()
	p.env = append(p.env, "KUBECONFIG="+c.BesideKubeconfig())
}

// Open reads a page. Its commands will run on the cluster, with kubectl at hand and env beside
// the test's own environment.
func Open(t testing.TB, file string, c *cluster.Cluster, env ...string) *Page {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := &Page{Dir: t.TempDir(), Blocks: map[string][]string{}, file: filepath.Base(file)}
	p.env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig, "PATH="+p.Dir+":"+os.Getenv("PATH"), "HOME="+p.Dir)
	p.env = append(p.env, env...)
	p.read(string(text))
	p.Program(t, "kubectl", c.KubectlPath())
	return p
}

// read finds the blocks. One in a list is indented as the list is.
func (p *Page) read(text string) {
	heading, indent, inside := "", "", false
	var block []string
	for line := range strings.SplitSeq(text, "\n") {
		trimmed := strings.TrimLeft(line, " ")
		switch {
		case inside && trimmed == "```":
			p.add(heading, strings.Join(block, "\n"))
			inside, block = false, nil
		case inside:
			block = append(block, strings.TrimPrefix(line, indent))
		case trimmed == "```sh":
			inside, indent = true, line[:len(line)-len(trimmed)]
		case strings.HasPrefix(line, "## "), strings.HasPrefix(line, "### "):
			heading = strings.TrimLeft(line, "# ")
		}
	}
}

func (p *Page) add(section, block string) {
	if !slices.Contains(p.Sections, section) {
		p.Sections = append(p.Sections, section)
	}
	p.Blocks[section] = append(p.Blocks[section], block)
}

// Program has the page's commands find a program under a name.
func (p *Page) Program(t testing.TB, name, path string) {
	t.Helper()
	if err := os.Symlink(path, filepath.Join(p.Dir, name)); err != nil {
		t.Fatal(err)
	}
}

// Run runs one block of a section, which has to succeed, and returns what it printed. Functions
// that earlier blocks define are there.
func (p *Page) Run(t testing.TB, section string, block int) string {
	t.Helper()
	if block >= len(p.Blocks[section]) {
		t.Fatalf("%s: section %q has %d blocks of shell", p.file, section, len(p.Blocks[section]))
	}
	text := p.Blocks[section][block]
	script := "set -eo pipefail\n[ ! -f functions ] || . ./functions\n" + text + "\ndeclare -f > functions\n"
	cmd := exec.Command("bash", "-c", script)
	if p.netns != "" {
		cmd = exec.Command("nsenter", "--net="+p.netns, "bash", "-c", script)
	}
	cmd.Dir, cmd.Env = p.Dir, p.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s, section %q, block %d: %v\n%s\n%s", p.file, section, block, err, text, out)
	}
	if !slices.Contains(p.ran, section) {
		p.ran = append(p.ran, section)
	}
	return string(out)
}

// RunAll runs all blocks in order, and returns what they printed.
func (p *Page) RunAll(t testing.TB) string {
	t.Helper()
	var said strings.Builder
	for _, section := range p.Sections {
		for i := range p.Blocks[section] {
			said.WriteString(p.Run(t, section, i))
		}
	}
	return said.String()
}

// Unrun are the sections of which no block was run.
func (p *Page) Unrun() []string {
	return slices.DeleteFunc(slices.Clone(p.Sections), func(s string) bool { return slices.Contains(p.ran, s) })
}
