package mesh

import (
	"context"
	"os"
	"sync"
	"testing"
)

// Shared is what Build makes, for all tests of a package: when the first asks for it. The
// package's TestMain calls Run.
type Shared struct {
	once  sync.Once
	dir   string
	built *Built
	err   error
}

// Built builds from the repository at root, once.
func (s *Shared) Built(t testing.TB, root string) *Built {
	t.Helper()
	s.once.Do(func() {
		if s.dir, s.err = os.MkdirTemp("", "fairlead-*"); s.err == nil {
			s.built, s.err = Build(context.Background(), root, s.dir)
		}
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.built
}

// Run runs a package's tests, and takes away what was built. It returns the exit code.
func (s *Shared) Run(m *testing.M) int {
	code := m.Run()
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
	return code
}
