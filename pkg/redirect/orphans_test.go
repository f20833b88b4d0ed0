package redirect

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

var sweep sync.Once

// deleteOrphans removes what runs that were killed left: pins and namespaces with
// their process's number in the name.
func deleteOrphans(t *testing.T) {
	t.Helper()
	lives := func(pid string) bool {
		cmdline, err := os.ReadFile("/proc/" + pid + "/cmdline")
		return err == nil && strings.Contains(string(cmdline), "redirect.test")
	}
	pins, err := filepath.Glob("/sys/fs/bpf/fairlead/test-*-*")
	if err != nil {
		t.Fatal(err)
	}
	for _, pin := range pins {
		instance := filepath.Base(pin)
		if lives(strings.Split(instance, "-")[1]) {
			continue
		}
		if err := Purge("", instance, ""); err != nil {
			t.Errorf("pins of a run that was killed: %v", err)
		}
	}
	names, err := netns.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if rest, ok := strings.CutPrefix(name, "fl-rd"); ok && !lives(strings.Split(rest, "-")[0]) {
			_ = netns.Delete(name) // another run may do the same
		}
	}
}
