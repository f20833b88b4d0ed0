package identity

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// directory keeps certificates and keys over a restart of the agent, in memory:
// it refuses a file system that writes to a disk.
type directory struct{ path string }

func openDirectory(path string) (*directory, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("certificate directory: %w", err)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return nil, fmt.Errorf("certificate directory: %w", err)
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return nil, fmt.Errorf("certificate directory %s: %w", path, err)
	}
	if stat.Type != unix.TMPFS_MAGIC && stat.Type != unix.RAMFS_MAGIC {
		return nil, fmt.Errorf("certificate directory %s is not on a tmpfs: keys must not reach a disk; mount a tmpfs there", path)
	}
	return &directory{path}, nil
}

func (d *directory) file(id mesh.Identity) string {
	sum := sha256.Sum256([]byte(id.String()))
	return filepath.Join(d.path, hex.EncodeToString(sum[:16])+".pem")
}

// load returns the certificate kept for id, or nil if there is none that holds.
func (d *directory) load(id mesh.Identity, trusted []*x509.Certificate, now time.Time) *Certificate {
	b, err := os.ReadFile(d.file(id))
	if err != nil {
		return nil
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil
	}
	c, err := newCertificate(id, key, rest, trusted, now)
	if err != nil {
		return nil
	}
	c.renewAtHalf(c.Leaf().NotBefore) // when it came is not known any more
	return c
}

func (d *directory) save(c *Certificate) error {
	b, err := c.KeyPEM()
	if err != nil {
		return err
	}
	b = append(b, c.ChainPEM()...)
	b = append(b, encodeCertificates(c.Roots)...)
	path := d.file(c.Identity)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("keep certificate of %s: %w", c.Identity, err)
	}
	return os.Rename(path+".new", path)
}

func (d *directory) remove(id mesh.Identity) error {
	if err := os.Remove(d.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// prune removes the files of identities that are not in keep.
func (d *directory) prune(keep []mesh.Identity) error {
	wanted := map[string]bool{}
	for _, id := range keep {
		wanted[filepath.Base(d.file(id))] = true
	}
	files, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		if !wanted[f.Name()] && (strings.HasSuffix(f.Name(), ".pem") || strings.HasSuffix(f.Name(), ".new")) {
			errs = append(errs, os.Remove(filepath.Join(d.path, f.Name())))
		}
	}
	return errors.Join(errs...)
}
