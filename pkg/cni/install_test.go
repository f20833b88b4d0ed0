package cni

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func installer(t *testing.T) *Installer {
	dir := t.TempDir()
	i := &Installer{
		ConfDir: filepath.Join(dir, "conf"), BinDir: filepath.Join(dir, "bin"), Binary: filepath.Join(dir, "plugin"), Log: slog.New(slog.DiscardHandler),
		Config: Config{Socket: "/run/s", Note: filepath.Join(dir, "note"), Credentials: filepath.Join(dir, "credentials"), ExcludedNamespaces: []string{"kube-system"}},
	}
	for _, d := range []string{i.ConfDir, i.BinDir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(i.Binary, []byte("v1"), 0o755); err != nil {
		t.Fatal(err)
	}
	return i
}

func put(t *testing.T, i *Installer, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(i.ConfDir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(i *Installer, name string) string {
	b, err := os.ReadFile(filepath.Join(i.ConfDir, name))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// chain is the plugins of a configuration, in order.
func chain(t *testing.T, i *Installer, name string) string {
	t.Helper()
	var l struct{ Plugins []struct{ Type string } }
	if err := json.Unmarshal([]byte(read(i, name)), &l); err != nil {
		return err.Error()
	}
	var out []string
	for _, p := range l.Plugins {
		out = append(out, p.Type)
	}
	return strings.Join(out, " ")
}

const bridge = `{"cniVersion":"1.0.0","name":"net","mtu":12345678901234567890,"plugins":[{"type":"bridge","ipam":{"subnet":"10.0.0.0/24"}},{"type":"portmap"}]}`

func TestPluginIsChainedToTheFirstConfiguration(t *testing.T) {
	i := installer(t)
	if err := i.Install(); err == nil || !strings.Contains(err.Error(), "no configuration") {
		t.Errorf("without one: %v", err)
	}
	put(t, i, "05-broken.conflist", "{")
	put(t, i, "10-net.conflist", bridge)
	put(t, i, "20-other.conflist", strings.Replace(bridge, `{"type":"portmap"}`, `{"type":"portmap"},{"type":"fairlead-cni"}`, 1))
	put(t, i, "00-readme.txt", "no configuration")
	if err := i.Install(); err != nil {
		t.Fatal(err)
	}
	if got := chain(t, i, "10-net.conflist"); got != "bridge portmap fairlead-cni" {
		t.Errorf("first: %s", got)
	}
	if got := chain(t, i, "20-other.conflist"); got != "bridge portmap" {
		t.Errorf("second: %s", got)
	}
	if !strings.Contains(read(i, "10-net.conflist"), "12345678901234567890") {
		t.Error("a number of another plugin was changed")
	}
	before := read(i, "10-net.conflist")
	if err := i.Install(); err != nil || read(i, "10-net.conflist") != before {
		t.Errorf("once more: %v", err)
	}
	i.Config.ExcludedNamespaces = []string{"kube-system", "other"}
	if err := i.Install(); err != nil || !strings.Contains(read(i, "10-net.conflist"), "other") || chain(t, i, "10-net.conflist") != "bridge portmap fairlead-cni" {
		t.Errorf("with other settings: %v %s", err, read(i, "10-net.conflist"))
	}
	if err := i.Remove(); err != nil {
		t.Fatal(err)
	}
	var got, want any
	_ = json.Unmarshal([]byte(bridge), &want)
	_ = json.Unmarshal([]byte(read(i, "10-net.conflist")), &got)
	if a, b := mustJSON(got), mustJSON(want); a != b {
		t.Errorf("after removal %s, want %s", a, b)
	}
	if left, _ := os.ReadDir(i.BinDir); len(left) != 0 {
		t.Errorf("left in the plugins' directory: %v", left)
	}
}

func mustJSON(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func TestSinglePluginBecomesAListAndComesBack(t *testing.T) {
	i := installer(t)
	const single = `{"cniVersion":"0.4.0","name":"net","type":"bridge"}`
	put(t, i, "10-net.conf", single)
	if err := i.Install(); err != nil {
		t.Fatal(err)
	}
	if got := chain(t, i, "10-net.conflist"); got != "bridge fairlead-cni" {
		t.Error(got)
	}
	if files, _ := i.confFiles(); len(files) != 1 {
		t.Errorf("the runtime reads %v", files)
	}
	if err := i.Install(); err != nil {
		t.Fatal(err)
	}
	if err := i.Remove(); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(i.ConfDir); len(entries) != 1 || read(i, "10-net.conf") != single {
		t.Errorf("after removal: %v %s", entries, read(i, "10-net.conf"))
	}
}

func TestWhatOthersOverwriteIsHealed(t *testing.T) {
	i := installer(t)
	put(t, i, "10-net.conflist", bridge)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- i.Run(ctx) }()
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !ok(); runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatalf("waited in vain: %s", what)
			}
		}
	}
	chained := func(name string) func() bool {
		return func() bool { return strings.HasSuffix(chain(t, i, name), Type) }
	}
	eventually("installed", chained("10-net.conflist"))
	put(t, i, "10-net.conflist", bridge)
	eventually("healed", chained("10-net.conflist"))
	put(t, i, "05-net.conflist", bridge)
	eventually("moved to what is first now", func() bool { return chained("05-net.conflist")() && !chained("10-net.conflist")() })
	if err := os.Remove(filepath.Join(i.BinDir, Type)); err != nil {
		t.Fatal(err)
	}
	eventually("the plugin is back", func() bool { _, err := os.Stat(filepath.Join(i.BinDir, Type)); return err == nil })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !chained("05-net.conflist")() {
		t.Error("it was removed with the agent")
	}
}

// A list of the name that ours would have is somebody else's: it is there, as it was, when
// the plugin goes.
func TestAListOfThatNameIsLeftAlone(t *testing.T) {
	i := installer(t)
	const single = `{"cniVersion":"1.0.0","name":"net","type":"bridge"}`
	put(t, i, "10-net.conf", single)
	put(t, i, "10-net.conflist", bridge)
	for range 2 {
		if err := i.Install(); err != nil {
			t.Fatal(err)
		}
	}
	files, err := i.confFiles()
	if err != nil || len(files) != 2 || filepath.Base(files[1]) != "10-net.conflist" {
		t.Fatalf("the runtime sees %v: %v", files, err)
	}
	if got := chain(t, i, filepath.Base(files[0])); got != "bridge fairlead-cni" {
		t.Errorf("it takes %s", got)
	}
	if got := read(i, "10-net.conflist"); got != bridge {
		t.Errorf("the other's: %s", got)
	}
	if err := i.Remove(); err != nil {
		t.Fatal(err)
	}
	if a, b := read(i, "10-net.conf"), read(i, "10-net.conflist"); a != single || b != bridge {
		t.Errorf("afterwards: %s and %s", a, b)
	}
	if files, err := i.confFiles(); err != nil || len(files) != 2 {
		t.Errorf("afterwards: %v %v", files, err)
	}
}
