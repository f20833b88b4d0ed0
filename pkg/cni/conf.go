package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// saved ends the name of a configuration of a single plugin that was made a list:
// runtimes do not read such a name.
const saved = ".fairlead-saved"

// confFiles are the files that a runtime reads, in its order: it takes the first.
func (i *Installer) confFiles() ([]string, error) {
	entries, err := os.ReadDir(i.ConfDir) // in lexical order
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".conf", ".conflist", ".json":
			if !e.IsDir() {
				out = append(out, filepath.Join(i.ConfDir, e.Name()))
			}
		}
	}
	return out, nil
}

// list is a configuration; what is not ours stays as it was.
type list map[string]any

func (l list) plugins() []any {
	p, _ := l["plugins"].([]any)
	return p
}

func isOurs(plugin any) bool {
	m, _ := plugin.(map[string]any)
	return m["type"] == Type
}

// decode reads a configuration; one of a single plugin becomes a list of one.
func decode(b []byte) (l list, single bool, err error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&l); err != nil {
		return nil, false, err
	}
	if _, ok := l["plugins"]; ok {
		return l, false, nil
	}
	if _, ok := l["type"].(string); !ok {
		return nil, false, errors.New("it has neither plugins nor type")
	}
	out := list{"name": l["name"], "cniVersion": l["cniVersion"]}
	delete(l, "name")
	delete(l, "cniVersion")
	out["plugins"] = []any{map[string]any(l)}
	return out, true, nil
}

// entry is our plugin as it should stand in a list.
func (i *Installer) entry() (map[string]any, error) {
	b, err := json.Marshal(map[string]any{
		"type": Type, "socket": i.Config.Socket, "note": i.Config.Note, "credentials": i.Config.Credentials,
		"excludedNamespaces": i.Config.ExcludedNamespaces, "injection": i.Config.Injection,
	})
	if err != nil {
		return nil, err
	}
	var m map[string]any
	return m, json.Unmarshal(b, &m)
}

// installConf has our plugin last in the configuration that the runtime takes, and
// in no other. It returns the file that it changed, or "".
func (i *Installer) installConf() (string, error) {
	files, err := i.confFiles()
	if err != nil {
		return "", err
	}
	first := slices.IndexFunc(files, func(f string) bool { return readable(f) == nil })
	if first < 0 {
		return "", fmt.Errorf("no configuration in %s yet: the plugin is chained to the one of the cluster's network", i.ConfDir)
	}
	for _, f := range files[first+1:] {
		if err := i.strip(f); err != nil {
			return "", err
		}
	}
	path := files[first]
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	l, single, err := decode(b)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	want, err := i.entry()
	if err != nil {
		return "", err
	}
	plugins := l.plugins()
	if n := len(plugins); n > 0 && reflect.DeepEqual(plugins[n-1], any(want)) && slices.IndexFunc(plugins, isOurs) == n-1 {
		return "", nil
	}
	l["plugins"] = append(slices.DeleteFunc(slices.Clone(plugins), isOurs), any(want))
	if single {
		// The list takes its place; the runtime would take the old name first.
		if err := write(listOf(path), path, l); err != nil {
			return "", err
		}
		return path, os.Rename(path, path+saved)
	}
	return path, write(path, path, l)
}

// listOf is the name of the list that takes the place of the configuration of a single
// plugin at path. Where there is one of that name, of somebody else's, it is another that
// sorts before.
func listOf(path string) string {
	usual := strings.TrimSuffix(path, filepath.Ext(path)) + ".conflist"
	if _, err := os.Lstat(usual); errors.Is(err, fs.ErrNotExist) {
		return usual
	}
	return path + beside
}

// beside ends the name of a list whose usual name is taken.
const beside = "-fairlead.conflist"

// readable reports what is wrong with a configuration; a runtime passes over it.
func readable(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, _, err = decode(b)
	return err
}

// write replaces path, with the mode of like.
func write(path, like string, l list) error {
	info, err := os.Stat(like)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	return replace(path, append(b, '\n'), info.Mode().Perm())
}

// strip takes our plugin out of a configuration.
func (i *Installer) strip(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	l, single, err := decode(b)
	if err != nil || single || !slices.ContainsFunc(l.plugins(), isOurs) {
		return nil //nolint:nilerr // what cannot be read has nothing of ours
	}
	l["plugins"] = slices.DeleteFunc(slices.Clone(l.plugins()), isOurs)
	return write(path, path, l)
}

// removeConf takes our plugin out of every configuration, and puts back those of a
// single plugin.
func (i *Installer) removeConf() error {
	files, err := i.confFiles()
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		errs = append(errs, i.strip(f))
	}
	kept, err := filepath.Glob(filepath.Join(i.ConfDir, "*"+saved))
	errs = append(errs, err)
	for _, f := range kept {
		original := strings.TrimSuffix(f, saved)
		errs = append(errs, os.Rename(f, original))
		made := original + beside
		if _, err := os.Lstat(made); err != nil {
			made = strings.TrimSuffix(original, filepath.Ext(original)) + ".conflist"
		}
		if err := os.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
