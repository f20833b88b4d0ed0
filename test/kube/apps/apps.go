// Package apps is the images of the workloads that tests run on a cluster: the
// programs of `fairlead app` under the names that the samples' manifests use, and
// one with a shell and curl. Tests under test/kube import it.
package apps

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

// Tools is the image that sleeps and has a shell, curl and `fairlead app` in it.
const Tools = "localhost/fairlead/tools:1"

// Echo is the image of the echo server; its flags are the container's args.
const Echo = "localhost/fairlead/echo:1"

// programs are those of `fairlead app`, by the images of the samples.
var programs = map[string]string{
	"docker.io/istio/examples-bookinfo-productpage-v1:1.20.3": "productpage",
	"docker.io/istio/examples-bookinfo-productpage-v1:1.18.0": "productpage",
	"docker.io/istio/examples-bookinfo-details-v1:1.20.3":     "details",
	"docker.io/istio/examples-bookinfo-ratings-v1:1.20.3":     "ratings",
	"docker.io/istio/examples-bookinfo-reviews-v1:1.20.3":     "reviews-v1",
	"docker.io/istio/examples-bookinfo-reviews-v2:1.20.3":     "reviews-v2",
	"docker.io/istio/examples-bookinfo-reviews-v3:1.20.3":     "reviews-v3",
	Echo:  "echo",
	Tools: "sleep",
}

// Write writes the images' archive into dir, of the `fairlead` at binary.
func Write(ctx context.Context, binary, dir string) (string, error) {
	a := cluster.Archive{Files: map[string]string{"/usr/local/bin/fairlead": binary}, Images: map[string][]string{}}
	for image, program := range programs {
		a.Images[image] = []string{"/usr/local/bin/fairlead", "app", program}
	}
	for _, tool := range []string{"sh", "cat", "curl"} {
		if err := withLibraries(ctx, a.Files, tool); err != nil {
			return "", err
		}
	}
	archive := filepath.Join(dir, "apps.tar")
	return archive, a.Write(archive)
}

// withLibraries adds a program of this machine and the libraries that it loads.
func withLibraries(ctx context.Context, files map[string]string, tool string) error {
	path, err := exec.LookPath(tool)
	if err != nil {
		return fmt.Errorf("tools image: %w (make setup installs it)", err)
	}
	files["/usr/bin/"+tool] = path
	if tool == "sh" {
		files["/bin/sh"] = path
	}
	out, err := exec.CommandContext(ctx, "ldd", path).Output()
	if err != nil {
		return fmt.Errorf("libraries of %s: %w", tool, err)
	}
	for field := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(field, "/") {
			files[field] = field
		}
	}
	return nil
}
