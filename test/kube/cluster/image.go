package cluster

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"runtime"
)

// Image is a small image for tests, made from files of this machine.
type Image struct {
	// Reference is its full name, registry and tag included.
	Reference string
	// Files are the paths in the image and where their contents are here.
	Files map[string]string
	// Entrypoint is its program with arguments.
	Entrypoint []string
}

// Write writes the image as an archive in the form of docker save, with one layer.
func (i Image) Write(archive string) error {
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	for to, from := range i.Files {
		b, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("image %s: %w", i.Reference, err)
		}
		if err := add(tw, path.Clean(to)[1:], b, 0o755); err != nil {
			return fmt.Errorf("image %s: %w", i.Reference, err)
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("image %s: %w", i.Reference, err)
	}
	sum := sha256.Sum256(layer.Bytes())
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": i.Entrypoint, "Env": []string{"PATH=/usr/local/bin:/usr/bin:/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	if err != nil {
		return fmt.Errorf("image %s: %w", i.Reference, err)
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{i.Reference}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return fmt.Errorf("image %s: %w", i.Reference, err)
	}
	var all bytes.Buffer
	tw = tar.NewWriter(&all)
	for _, f := range []struct {
		name string
		data []byte
	}{{"config.json", config}, {"layer.tar", layer.Bytes()}, {"manifest.json", manifest}} {
		if err := add(tw, f.name, f.data, 0o644); err != nil {
			return fmt.Errorf("image %s: %w", i.Reference, err)
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("image %s: %w", i.Reference, err)
	}
	if err := os.WriteFile(archive, all.Bytes(), 0o644); err != nil {
		return fmt.Errorf("image %s: %w", i.Reference, err)
	}
	return nil
}

func add(tw *tar.Writer, name string, data []byte, mode int64) error {
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	_, err := tw.Write(data)
	return err
}
