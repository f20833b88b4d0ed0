package lab

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/lab/token"
)

// maxLog is where a log file is cut: what it holds moves to a second file, and the
// one before that goes.
const maxLog = 64 << 20

// housekeeping renews tokens and keeps logs from filling the disk.
func (l *Lab) housekeeping(ctx context.Context) error {
	logs := time.NewTicker(5 * time.Second)
	defer logs.Stop()
	tokens := time.NewTicker(token.Lifetime / 3)
	defer tokens.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tokens.C:
			if l.signer != nil {
				l.renewTokens(ctx)
			}
		case <-logs.C:
			if err := cutLogs(l.place.logs()); err != nil {
				l.log.Warn("logs were not cut", "err", err)
			}
		}
	}
}

func cutLogs(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".log") {
			return ignoreGone(err)
		}
		info, err := e.Info()
		if err != nil || info.Size() < maxLog {
			return ignoreGone(err)
		}
		return ignoreGone(cutLog(path))
	})
}

// cutLog copies and empties: the writer keeps its file, which it only appends to.
func cutLog(path string) error {
	from, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path+".1", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return from.Truncate(0)
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
