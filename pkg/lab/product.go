package lab

import (
	"os"
	"path/filepath"
	"strings"
)

// Images of the product, and of the proxy that can stand in a waypoint's place.
const (
	imageWaypoint = "fairlead-waypoint"
	imageEnvoy    = "envoy"
)

// envoyVariable names the binary of Envoy, where it is not in PATH.
const envoyVariable = "FAIRLEAD_ENVOY"

// product is the binary that an image stands for, or "": it is none of the product's.
func (l *Lab) product(image string) string {
	switch imageName(image) {
	case imageWaypoint:
		return filepath.Join(l.opts.Binaries, "waypoint")
	case imageEnvoy:
		if path := os.Getenv(envoyVariable); path != "" {
			return path
		}
		return imageEnvoy
	}
	return ""
}

func isProduct(image string) bool {
	return imageName(image) == imageWaypoint || imageName(image) == imageEnvoy
}

// imageName is an image's without registry, tag and digest.
func imageName(image string) string {
	name, _, _ := strings.Cut(image, "@")
	name = name[strings.LastIndexByte(name, '/')+1:]
	name, _, _ = strings.Cut(name, ":")
	return name
}
