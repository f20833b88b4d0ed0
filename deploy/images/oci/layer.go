package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// File is a file or directory of an image, owned by root.
type File struct {
	// Path is absolute. The directories above it are made.
	Path string
	// Mode has the permissions; os.ModeDir for a directory, os.ModeSticky where wanted.
	Mode os.FileMode
	// Source is the file on this machine to take, or empty: then Content is the file.
	Source  string
	Content []byte
}

// Tmp is a /tmp that anyone may write to, as programs expect.
var Tmp = File{Path: "/tmp", Mode: 0o777 | os.ModeDir | os.ModeSticky}

// layer packs files, sorted and without times.
func layer(files []File) (v1.Layer, error) {
	var packed bytes.Buffer
	if err := writeTar(&packed, files); err != nil {
		return nil, err
	}
	raw := packed.Bytes()
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching)
}

func writeTar(to io.Writer, files []File) error {
	all, err := withDirectories(files)
	if err != nil {
		return err
	}
	w := tar.NewWriter(to)
	for _, f := range all {
		content := f.Content
		if f.Source != "" {
			if content, err = os.ReadFile(f.Source); err != nil {
				return fmt.Errorf("file %s of the image: %w", f.Path, err)
			}
		}
		header := &tar.Header{
			Name: strings.TrimPrefix(f.Path, "/"), Typeflag: tar.TypeReg, Size: int64(len(content)),
			Mode: int64(f.Mode.Perm()), Format: tar.FormatPAX,
		}
		if f.Mode&os.ModeSticky != 0 {
			header.Mode |= 0o1000
		}
		if f.Mode.IsDir() {
			header.Typeflag, header.Name = tar.TypeDir, header.Name+"/"
		}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
	return w.Close()
}

// withDirectories adds the directories above files and sorts, so that a directory
// comes before what lies in it.
func withDirectories(files []File) ([]File, error) {
	seen := map[string]File{}
	for _, f := range files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
			return nil, fmt.Errorf("path %q of the image is not a clean absolute path", f.Path)
		}
		if _, twice := seen[f.Path]; twice {
			return nil, fmt.Errorf("%s is in the image twice", f.Path)
		}
		seen[f.Path] = f
	}
	for _, f := range files {
		for dir := path.Dir(f.Path); dir != "/"; dir = path.Dir(dir) {
			if above, ok := seen[dir]; !ok {
				seen[dir] = File{Path: dir, Mode: 0o755 | os.ModeDir}
			} else if !above.Mode.IsDir() {
				return nil, errors.New(dir + " is a file and a directory of the image")
			}
		}
	}
	all := make([]File, 0, len(seen))
	for _, f := range seen {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}
