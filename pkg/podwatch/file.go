package podwatch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// file remembers pods on disk, so that a restarted agent takes them over
// without asking anyone. It holds no secrets.
type file struct {
	path    string
	writing sync.Mutex // orders writers

	// mu guards below: writers that wait share what the next one writes.
	mu             sync.Mutex
	asked, written uint64
}

// content is the file's form. Namespaces do not outlive the boot they were made in.
type content struct {
	Boot string `json:"boot"`
	Pods []Pod  `json:"pods"`
}

// bootID is the kernel's name for the time since it was started.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it, boots are not told apart
	return strings.TrimSpace(string(b))
}

func (f *file) load() ([]Pod, error) {
	b, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pods of the last run: %w", err)
	}
	var c content
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("pods of the last run in %s: %w", f.path, err)
	}
	if c.Boot != bootID() {
		return nil, nil
	}
	good := c.Pods[:0]
	var errs []error
	for _, p := range c.Pods {
		if err := p.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("pods of the last run in %s: %s: %w", f.path, p.Key(), err))
			continue
		}
		good = append(good, p)
	}
	return good, errors.Join(errs...)
}

// save returns when what pods returned at its call, or later, is written.
func (f *file) save(pods func() []Entry) error {
	f.mu.Lock()
	f.asked++
	mine := f.asked
	f.mu.Unlock()
	f.writing.Lock()
	defer f.writing.Unlock()
	f.mu.Lock()
	done, upTo := f.written >= mine, f.asked
	f.mu.Unlock()
	if done {
		return nil
	}
	if err := f.write(pods()); err != nil {
		return err
	}
	f.mu.Lock()
	f.written = upTo
	f.mu.Unlock()
	return nil
}

func (f *file) write(pods []Entry) error {
	c := content{Boot: bootID()}
	for _, e := range pods {
		c.Pods = append(c.Pods, e.Pod)
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return err
	}
	tmp := f.path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, f.path)
}

// namespaceGone reports whether nothing is at path any more.
func namespaceGone(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}
