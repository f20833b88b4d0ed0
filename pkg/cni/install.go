package cni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/fairlead-mesh/fairlead/pkg/kube"
)

// Installer keeps the plugin on the node. Paths are the agent's own view of the
// node's directories, but for those within Config, which the plugin reads.
type Installer struct {
	// ConfDir is where the runtime reads its configuration; BinDir its plugins.
	ConfDir, BinDir string
	// Binary is the plugin as the agent's image has it.
	Binary string
	Config Config
	// API gives the credentials that the plugin asks with while the agent is down: a
	// token of the service account Account in Namespace, which may read pods and
	// namespaces and no more.
	API                *kube.Client
	Namespace, Account string
	Log                *slog.Logger

	renew time.Time // when the credentials are to be written anew
}

// How the plugin is kept.
const (
	quiet = 100 * time.Millisecond // for a writer to finish
	again = 30 * time.Second       // nothing tells of a token that is to be renewed
	// credentialsLife is how long the plugin may ask the API without an agent.
	credentialsLife = 24 * time.Hour
)

// Run installs the plugin and heals what others change of it until ctx ends. It
// stays installed then: see Remove.
func (i *Installer) Run(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the CNI configuration: %w", err)
	}
	defer watcher.Close()
	for _, dir := range []string{i.ConfDir, i.BinDir} {
		if err := watcher.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	told := ""
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			timer.Reset(quiet)
		case err := <-watcher.Errors:
			i.Log.Warn("the CNI configuration is not watched", "err", err)
		case <-timer.C:
			err := i.Install()
			switch {
			case err == nil && told != "":
				i.Log.Info("the CNI plugin is installed")
				told = ""
			case err != nil && err.Error() != told:
				told = err.Error()
				i.Log.Error("the CNI plugin is not installed: pods start before they are captured", "err", err)
			}
			timer.Reset(again)
		}
	}
}

// Install makes binary, credentials and configuration as they should be, and leaves
// alone what is. The configuration comes last: a plugin that is named must be there.
func (i *Installer) Install() error {
	if err := i.installBinary(); err != nil {
		return fmt.Errorf("CNI plugin: %w", err)
	}
	if err := i.writeCredentials(); err != nil {
		return fmt.Errorf("credentials of the CNI plugin: %w", err)
	}
	changed, err := i.installConf()
	if err != nil {
		return fmt.Errorf("CNI configuration: %w", err)
	}
	if changed != "" {
		i.Log.Info("the CNI plugin was put into the runtime's configuration", "file", changed)
	}
	return nil
}

// Client asks the API as the plugin does.
func (i *Installer) Client() (*kube.Client, error) { return i.Config.client() }

// writeCredentials gives the plugin a token that outlives the agent's pod, or where
// the agent may not ask for one, the agent's own.
func (i *Installer) writeCredentials() error {
	if i.API == nil || time.Now().Before(i.renew) {
		return nil
	}
	how, err := i.API.Config()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), asking)
	defer cancel()
	token, expires, err := i.API.AccountToken(ctx, i.Namespace, i.Account, credentialsLife)
	switch {
	case err == nil:
		how.Token, i.renew = token, time.Now().Add(time.Until(expires)/2)
	case !kube.IsForbidden(err):
		return err
	}
	return writeJSON(i.Config.Credentials, how)
}

// installBinary copies the plugin where the node has none, or another. Neither is
// ever held in memory: it is larger than all that the agent holds.
func (i *Installer) installBinary() error {
	ours, err := os.Open(i.Binary)
	if err != nil {
		return err
	}
	defer ours.Close()
	path := filepath.Join(i.BinDir, Type)
	if theirs, err := os.Open(path); err == nil {
		same := equal(ours, theirs)
		_ = theirs.Close()
		if same {
			return nil
		}
		if _, err := ours.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	return replaceFrom(path, ours, 0o755)
}

// equal reports whether two files have the same contents.
func equal(a, b *os.File) bool {
	ia, erra := a.Stat()
	ib, errb := b.Stat()
	if erra != nil || errb != nil || ia.Size() != ib.Size() {
		return false
	}
	ba, bb := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		na, erra := io.ReadFull(a, ba)
		nb, errb := io.ReadFull(b, bb)
		if !bytes.Equal(ba[:na], bb[:nb]) {
			return false
		}
		if erra != nil || errb != nil {
			return isEnd(erra) && isEnd(errb)
		}
	}
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// Note writes down the labels of namespaces, for the plugin while no agent is there.
func (i *Installer) Note(namespaces map[string]map[string]string) error {
	return writeJSON(i.Config.Note, Note{Namespaces: namespaces})
}

// Remove takes everything off the node, the configuration first.
func (i *Installer) Remove() error {
	errs := []error{i.removeConf()}
	for _, path := range []string{filepath.Join(i.BinDir, Type), i.Config.Credentials, i.Config.Note} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
