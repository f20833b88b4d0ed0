package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLackingCapabilitiesAreNamed(t *testing.T) {
	for status, want := range map[string][]string{
		"Name:\tx\nCapInh:\t0\nCapEff:\t0000000000281000\nCapBnd:\t0\n": nil,
		"CapEff:\t0000000000081000\n":                                   {"CAP_SYS_ADMIN"},
		"CapEff:\t0000000000280000\n":                                   {"CAP_NET_ADMIN"},
		"CapEff:\t0000000000201000\n":                                   {"CAP_SYS_PTRACE"},
		"CapEff:\t0\n":                                                  {"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE"},
		"":                                                              nil,
	} {
		if got := lacking(status); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", status, got, want)
		}
	}
	other := fmt.Errorf("open: %w", fs.ErrNotExist)
	if got := Blame(other); !errors.Is(got, other) || got.Error() != other.Error() {
		t.Errorf("what is not a matter of rights: %v", got)
	}
	if got := Blame(unix.EPERM); !errors.Is(got, unix.EPERM) {
		t.Errorf("%v", got)
	}
}
