package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestImageIsReproducible(t *testing.T) {
	t.Chdir("../..") // where the Makefile calls it
	var first []byte
	for range 2 {
		out := t.TempDir()
		b := builder{
			hub: "localhost/fairlead", tag: "v1.2.3", out: out, ldflags: "-s -w",
			platforms: []string{"linux/" + runtime.GOARCH}, only: []string{"waypoint"},
		}
		if err := b.run(t.Context(), io.Discard); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(out, "waypoint.tar"))
		if err != nil {
			t.Fatal(err)
		}
		bill, err := os.ReadFile(filepath.Join(out, "waypoint-"+runtime.GOARCH+".spdx.json"))
		if err != nil || !bytes.Contains(bill, []byte(`"pkg:golang/google.golang.org/grpc@`)) {
			t.Errorf("the bill of materials does not name gRPC: %v", err)
		}
		raw = append(raw, bill...)
		if first != nil && !bytes.Equal(first, raw) {
			t.Error("two builds of one commit differ")
		}
		first = raw
	}
}

func TestOnlyWhatNeedsRootRunsAsRoot(t *testing.T) {
	for _, r := range recipes {
		if privileged := r.user == ""; privileged != (r.name == "node-agent") {
			t.Errorf("%s runs as %q", r.name, r.user)
		}
	}
}

func TestWebRootsAreThere(t *testing.T) {
	if n := bytes.Count(webRoots().Content, []byte("BEGIN CERTIFICATE")); n < 50 {
		t.Errorf("%d roots", n)
	}
}

func TestUnknownImageIsNamed(t *testing.T) {
	b := builder{only: []string{"waypint"}, out: t.TempDir()}
	if err := b.run(context.Background(), io.Discard); err == nil || !strings.Contains(err.Error(), `"waypint"`) {
		t.Errorf("got %v", err)
	}
	if !slices.ContainsFunc(recipes, func(r recipe) bool { return r.name == "waypoint" }) {
		t.Error("no waypoint is built")
	}
}
