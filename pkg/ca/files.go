package ca

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Files name a plugged-in authority, each in PEM: Istio's cacerts.
type Files struct {
	Cert, Key string // ca-cert.pem, ca-key.pem
	// Chain is the authority's own chain (cert-chain.pem); "" if Cert is a root.
	Chain string
	// Roots is what peers trust (root-cert.pem); several, while one is replaced.
	Roots string
}

// Load reads a plugged-in authority. The key's file must not be open to others.
func Load(f Files) (*Authority, error) {
	if err := private(f.Key); err != nil {
		return nil, err
	}
	var m Material
	for _, part := range []struct {
		path string
		to   *[]byte
	}{{f.Cert, &m.Cert}, {f.Key, &m.Key}, {f.Chain, &m.Chain}, {f.Roots, &m.Roots}} {
		if part.path == "" {
			continue
		}
		var err error
		if *part.to, err = os.ReadFile(part.path); err != nil {
			return nil, fmt.Errorf("CA: %w", err)
		}
	}
	a, err := Parse(m)
	if err != nil {
		return nil, fmt.Errorf("CA of %s: %w", f.Cert, err)
	}
	return a, nil
}

// private: others may not read the file. A group may where the file is not the
// process's own: the kubelet gives mounted Secrets to a pod's fsGroup so.
func private(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("CA key: %w", err)
	}
	open := os.FileMode(0o077)
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		open = 0o037
	}
	if mode := info.Mode().Perm(); mode&open != 0 {
		return fmt.Errorf("CA key %s has mode %04o: others than its owner may read it; chmod 0600 it (a volume: defaultMode 0400), and replace it if they have", path, mode)
	}
	return nil
}

// Create returns the authority kept in dir, and makes one, with a new root, if
// there is none. The key's file must be readable by its owner alone.
func Create(dir, trustDomain string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("CA directory: %w", err)
	}
	certFile, keyFile := filepath.Join(dir, "root-cert.pem"), filepath.Join(dir, "root-key.pem")
	if _, err := os.Stat(keyFile); errors.Is(err, fs.ErrNotExist) {
		m, err := Generate(trustDomain)
		if err != nil {
			return nil, err
		}
		// The certificate first: a key without one would be taken for complete.
		if err := writeNew(certFile, m.Cert, 0o644); err != nil {
			return nil, err
		}
		if err := writeNew(keyFile, m.Key, 0o600); err != nil {
			return nil, err
		}
	}
	return Load(Files{Cert: certFile, Key: keyFile, Roots: certFile})
}

func writeNew(path string, b []byte, mode os.FileMode) error {
	if err := os.WriteFile(path+".new", b, mode); err != nil {
		return fmt.Errorf("CA: %w", err)
	}
	return os.Rename(path+".new", path)
}

// lookEvery is how often files are looked at for a replaced authority.
const lookEvery = 2 * time.Second

// Follow gives h what is in the files, again and again until ctx ends: a plugged-in
// authority is replaced without a restart. Files that are wrong, as half-written ones
// are, change nothing.
func (f Files) Follow(ctx context.Context, h *Holder) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a, err := Load(f)
		switch {
		case err == nil:
			said = ""
			h.Set(a, f.Cert)
		case said != err.Error():
			said = err.Error()
			h.Refuse(f.Cert, err)
		}
	}
}
