// Package files reads what a command line names: files, directories and standard input.
//
// For the packages under pkg/cli and cmd/fairlead.
package files

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// maxStdin bounds what is read from a pipe.
const maxStdin = 64 << 20

// Read reads all files that names lead to, in order; "-" is stdin, and of a directory
// the files of objects that are anywhere below it. Names are kept as they were given.
func Read(stdin io.Reader, names []string) ([]source.File, error) {
	var out []source.File
	for _, name := range names {
		if name == "-" {
			text, err := io.ReadAll(io.LimitReader(stdin, maxStdin))
			if err != nil {
				return nil, fmt.Errorf("read standard input: %w", err)
			}
			out = append(out, source.File{Name: "-", Data: text})
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			text, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			out = append(out, source.File{Name: name, Data: text})
			continue
		}
		inside, err := directory(name)
		if err != nil {
			return nil, err
		}
		out = append(out, inside...)
	}
	return out, nil
}

func directory(dir string) ([]source.File, error) {
	var out []source.File
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path != dir && strings.HasPrefix(entry.Name(), ".") {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		switch filepath.Ext(path) {
		case ".yaml", ".yml", ".json":
		default:
			return nil
		}
		if entry.IsDir() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil {
			out = append(out, source.File{Name: path, Data: text})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	return out, nil
}
