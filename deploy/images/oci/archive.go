package oci

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// containerd takes the full reference from its own annotation, others the tag from OCI's.
const (
	annotationName = "io.containerd.image.name"
	annotationTag  = "org.opencontainers.image.ref.name"
)

// WriteFile writes images as one archive, beside and then renamed, so that a
// reader never sees half of it.
func WriteFile(file string, images ...Image) error {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := Write(f, images...); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// Write writes images as one archive: a tar of an OCI image layout.
func Write(to io.Writer, images ...Image) error {
	dir, err := os.MkdirTemp("", "oci-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := writeLayout(dir, images); err != nil {
		return err
	}
	return archive(to, dir)
}

func writeLayout(dir string, images []Image) error {
	at, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("image layout: %w", err)
	}
	for _, img := range images {
		index, err := img.index()
		if err != nil {
			return err
		}
		tag, err := name.NewTag(img.Name)
		if err != nil {
			return fmt.Errorf("image name: %w", err)
		}
		if err := at.AppendIndex(index, layout.WithAnnotations(map[string]string{
			annotationName: img.Name, annotationTag: tag.TagStr(),
		})); err != nil {
			return fmt.Errorf("image %s: %w", img.Name, err)
		}
	}
	return nil
}

// archive packs a layout; WalkDir goes in lexical order.
func archive(to io.Writer, dir string) error {
	w := tar.NewWriter(to)
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || file == dir {
			return err
		}
		inside, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return w.WriteHeader(&tar.Header{Name: inside + "/", Typeflag: tar.TypeDir, Mode: 0o755})
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: inside, Typeflag: tar.TypeReg, Mode: 0o644, Size: info.Size()}); err != nil {
			return err
		}
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
	if err != nil {
		return fmt.Errorf("pack the image layout: %w", err)
	}
	return w.Close()
}
