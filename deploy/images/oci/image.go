package oci

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is one image, for one or more platforms.
type Image struct {
	// Name is the reference under which it is imported, with its tag: "localhost/pause:1".
	Name string
	// Entrypoint is what a container runs; a pod's args follow it.
	Entrypoint []string
	// User is "uid:gid", or empty for root.
	User string
	// Labels are the config's, such as org.opencontainers.image.version.
	Labels map[string]string
	// Variants are the platforms, in the order of the index.
	Variants []Variant
}

// Variant is an image's content for a platform.
type Variant struct {
	// OS and Arch as Go names them; OS is linux when empty.
	OS, Arch string
	Files    []File
}

// Single is the image of one static binary for one architecture, run as root with
// /tmp to write to.
func Single(name, arch, binary string) Image {
	at := "/usr/local/bin/" + path.Base(binary)
	return Image{
		Name: name, Entrypoint: []string{at},
		Variants: []Variant{{Arch: arch, Files: []File{{Path: at, Source: binary, Mode: 0o755}, Tmp}}},
	}
}

func (i Image) validate() error {
	if _, err := name.NewTag(i.Name, name.StrictValidation); err != nil {
		return fmt.Errorf("image name %q (want HOST/NAME:TAG): %w", i.Name, err)
	}
	if len(i.Variants) == 0 {
		return errors.New("image " + i.Name + " has no platform")
	}
	return nil
}

// index is the image as an index over its platforms.
func (i Image) index() (v1.ImageIndex, error) {
	if err := i.validate(); err != nil {
		return nil, err
	}
	var adds []mutate.IndexAddendum
	for _, variant := range i.Variants {
		img, err := i.variant(variant)
		if err != nil {
			return nil, fmt.Errorf("image %s for %s: %w", i.Name, variant.Arch, err)
		}
		adds = append(adds, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			MediaType: types.OCIManifestSchema1, Platform: variant.platform(),
		}})
	}
	return mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), adds...), nil
}

func (i Image) variant(variant Variant) (v1.Image, error) {
	content, err := layer(variant.Files)
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	p := variant.platform()
	base, err = mutate.ConfigFile(base, &v1.ConfigFile{
		OS: p.OS, Architecture: p.Architecture, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: slices.Clone(i.Entrypoint), User: i.User, Labels: i.Labels,
			Env:        []string{"PATH=/usr/local/bin"},
			WorkingDir: "/",
		},
	})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(base, content)
}

func (v Variant) platform() *v1.Platform {
	os := v.OS
	if os == "" {
		os = "linux"
	}
	return &v1.Platform{OS: os, Architecture: v.Arch}
}
