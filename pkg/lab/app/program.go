package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Env is what a program finds around it.
type Env struct {
	Args           []string
	Getenv         func(string) string
	Stdout, Stderr io.Writer
}

// program runs until its work is done or ctx ends, and then lets what it is
// serving come to an end.
type program func(ctx context.Context, env Env) error

// programs are keyed by the name that `fairlead app` takes.
var programs = map[string]program{
	"echo": runEcho,
	"load": runLoad,

	"sleep":       runSleep,
	"productpage": runProductpage,
	"details":     runDetails,
	"ratings":     runRatings,
	"reviews-v1":  reviews("v1", ""),
	"reviews-v2":  reviews("v2", "black"),
	"reviews-v3":  reviews("v3", "red"),
}

// images lead from the last part of an image's name, without tag, to a program.
var images = []struct {
	pattern *regexp.Regexp
	program string
	example string
}{
	{regexp.MustCompile(`^(fairlead-)?echo$`), "echo", "echo"},
	{regexp.MustCompile(`^(fairlead-)?load$`), "load", "load"},
	{regexp.MustCompile(`^(examples-)?bookinfo-productpage(-v1)?$`), "productpage", "docker.io/istio/examples-bookinfo-productpage-v1"},
	{regexp.MustCompile(`^(examples-)?bookinfo-details(-v[12])?$`), "details", "docker.io/istio/examples-bookinfo-details-v1"},
	{regexp.MustCompile(`^(examples-)?bookinfo-ratings(-v[12])?$`), "ratings", "docker.io/istio/examples-bookinfo-ratings-v1"},
	{regexp.MustCompile(`^(examples-)?bookinfo-reviews-v1$`), "reviews-v1", "docker.io/istio/examples-bookinfo-reviews-v1"},
	{regexp.MustCompile(`^(examples-)?bookinfo-reviews-v2$`), "reviews-v2", "docker.io/istio/examples-bookinfo-reviews-v2"},
	{regexp.MustCompile(`^(examples-)?bookinfo-reviews-v3$`), "reviews-v3", "docker.io/istio/examples-bookinfo-reviews-v3"},
	{regexp.MustCompile(`^(curl|busybox|alpine|sleep|pause)$`), "sleep", "curlimages/curl, busybox, alpine (they sleep: run programs there with `fairlead lab exec`)"},
}

// ForImage is the program that an image's name leads to. Registry, tag and
// digest do not matter.
func ForImage(image string) (string, error) {
	name, _, _ := strings.Cut(image, "@")
	name = name[strings.LastIndexByte(name, '/')+1:]
	name, _, _ = strings.Cut(name, ":")
	known := make([]string, 0, len(images))
	for _, i := range images {
		if i.pattern.MatchString(name) {
			return i.program, nil
		}
		known = append(known, i.example)
	}
	return "", fmt.Errorf("the lab has no program for image %q: give the container a command of this machine, or one of these images: %s",
		image, strings.Join(known, "; "))
}

// Names are all programs.
func Names() []string { return slices.Sorted(maps.Keys(programs)) }

// Run runs a program by name.
func Run(ctx context.Context, name string, env Env) error {
	run, ok := programs[name]
	if !ok {
		return fmt.Errorf("no program %q: there are %s", name, strings.Join(Names(), ", "))
	}
	err := run(ctx, env)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// runSleep ends when told to; images without a server of their own become it.
func runSleep(ctx context.Context, _ Env) error {
	<-ctx.Done()
	return nil
}
