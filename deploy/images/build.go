package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/deploy/images/oci"
	"github.com/fairlead-mesh/fairlead/deploy/images/sbom"
)

const module = "github.com/fairlead-mesh/fairlead"

// recipe is what an image is made of.
type recipe struct {
	name string
	// binaries are commands of cmd/; the first is the entrypoint.
	binaries []string
	// user is "uid:gid"; the node agent needs root for what the kernel gives to root alone.
	user string
	// roots says whether the program checks certificates of the public web.
	roots bool
}

// unprivileged is the user of Istio's images, which policies of clusters know.
const unprivileged = "1337:1337"

var recipes = []recipe{
	{name: "control-plane", binaries: []string{"control-plane"}, user: unprivileged, roots: true},
	{name: "node-agent", binaries: []string{"node-agent", "fairlead-cni"}},
	{name: "waypoint", binaries: []string{"waypoint"}, user: unprivileged, roots: true},
}

// builder builds all images that are asked for.
type builder struct {
	hub, tag, out, tags, ldflags string
	platforms, only              []string
}

func (b *builder) run(ctx context.Context, log io.Writer) error {
	for _, name := range b.only {
		if !slices.ContainsFunc(recipes, func(r recipe) bool { return r.name == name }) {
			return fmt.Errorf("no image is named %q", name)
		}
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "images-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	for _, r := range recipes {
		if len(b.only) > 0 && !slices.Contains(b.only, r.name) {
			continue
		}
		if err := b.image(ctx, r, work); err != nil {
			return fmt.Errorf("image %s: %w", r.name, err)
		}
		fmt.Fprintf(log, "%s/%s:%s in %s\n", b.hub, r.name, b.tag, b.archive(r))
	}
	return nil
}

func (b *builder) archive(r recipe) string { return filepath.Join(b.out, r.name+".tar") }

func (b *builder) image(ctx context.Context, r recipe, work string) error {
	img := oci.Image{
		Name: b.hub + "/" + r.name + ":" + b.tag, User: r.user,
		Entrypoint: []string{"/usr/local/bin/" + r.binaries[0]},
		Labels: map[string]string{
			"org.opencontainers.image.version": b.tag,
			"org.opencontainers.image.source":  "https://" + module,
			"org.opencontainers.image.title":   "fairlead " + r.name,
		},
	}
	for _, platform := range b.platforms {
		goos, arch, ok := strings.Cut(platform, "/")
		if !ok {
			return fmt.Errorf("platform %q is not OS/ARCH", platform)
		}
		dir := filepath.Join(work, goos+"-"+arch)
		built, err := b.compile(ctx, r, dir, goos, arch)
		if err != nil {
			return err
		}
		files := []oci.File{oci.Tmp}
		for _, binary := range built {
			files = append(files, oci.File{Path: "/usr/local/bin/" + filepath.Base(binary), Mode: 0o755, Source: binary})
		}
		if r.roots {
			files = append(files, webRoots())
		}
		img.Variants = append(img.Variants, oci.Variant{OS: goos, Arch: arch, Files: files})
		bill := filepath.Join(b.out, r.name+"-"+arch+".spdx.json")
		if err := sbom.Write(bill, r.name+"-"+arch, b.tag, built...); err != nil {
			return err
		}
	}
	return oci.WriteFile(b.archive(r), img)
}

// compile builds an image's binaries with the flags of `make build`.
func (b *builder) compile(ctx context.Context, r recipe, dir, goos, arch string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	args := []string{
		"build", "-trimpath", "-tags", strings.TrimSuffix("grpcnotrace,"+b.tags, ","),
		"-ldflags", b.ldflags + " -X " + module + "/pkg/telemetry.Version=" + b.tag, "-o", dir + "/",
	}
	var built []string
	for _, name := range r.binaries {
		args = append(args, module+"/cmd/"+name)
		built = append(built, filepath.Join(dir, name))
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return built, nil
}
