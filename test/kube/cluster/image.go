package cluster

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
)

// Archive is small images for tests that share one layer, made from files of this machine.
type Archive struct {
	// Files are the paths in the images and where their contents are here.
	Files map[string]string
	// Images are the programs with arguments of each image, by full reference
	// (registry and tag included).
	Images map[string][]string
}

// Write writes the images in the form of docker save.
func (a Archive) Write(archive string) error {
	if err := a.write(archive); err != nil {
		return fmt.Errorf("images %s: %w", archive, err)
	}
	return nil
}

func (a Archive) write(archive string) error {
	layer, err := a.layer()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(layer)
	var all bytes.Buffer
	tw := tar.NewWriter(&all)
	if err := add(tw, "layer.tar", layer, 0o644); err != nil {
		return err
	}
	type image struct {
		Config           string
		RepoTags, Layers []string
	}
	var manifest []image
	for i, reference := range slices.Sorted(maps.Keys(a.Images)) {
		config, err := json.Marshal(map[string]any{
			"architecture": runtime.GOARCH, "os": "linux",
			"config": map[string]any{"Entrypoint": a.Images[reference], "Env": []string{"PATH=/usr/local/bin:/usr/bin:/bin"}},
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
		})
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%d.json", i)
		if err := add(tw, name, config, 0o644); err != nil {
			return err
		}
		manifest = append(manifest, image{name, []string{reference}, []string{"layer.tar"}})
	}
	b, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	if err := errors.Join(add(tw, "manifest.json", b, 0o644), tw.Close()); err != nil {
		return err
	}
	return os.WriteFile(archive, all.Bytes(), 0o600)
}

func (a Archive) layer() ([]byte, error) {
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	for _, to := range slices.Sorted(maps.Keys(a.Files)) {
		b, err := os.ReadFile(a.Files[to])
		if err != nil {
			return nil, err
		}
		if err := add(tw, path.Clean(to)[1:], b, 0o755); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return layer.Bytes(), nil
}

func add(tw *tar.Writer, name string, data []byte, mode int64) error {
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	_, err := tw.Write(data)
	return err
}
