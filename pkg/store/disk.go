package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// magic begins the file; its last byte is the format's version. A file of another
// version is not read: the control plane sends everything again.
var magic = []byte("fairlead state\x00\x01")

// saveEvery is the least time between two writes of a changing state. It is short,
// so that an agent that is killed early has something to start from; a large state
// is written less often, see Keep.
const saveEvery = 100 * time.Millisecond

// Saved is what the file holds.
type Saved struct {
	State mesh.Delta
	// Versions are the resource versions by type and name, and exactly State's: a
	// reconnect may send too much but never too little.
	Versions map[string]map[string]string
}

// Load reads the state of an earlier run. No file is an empty state; a damaged
// one is an error, after which the caller starts empty.
func Load(path string) (Saved, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Saved{}, nil
	}
	if err != nil {
		return Saved{}, fmt.Errorf("last state: %w", err)
	}
	head := len(magic) + sha256.Size
	if len(b) < head || !bytes.Equal(b[:len(magic)], magic) {
		return Saved{}, fmt.Errorf("last state: %s is of another version", path)
	}
	if sum := sha256.Sum256(b[head:]); !bytes.Equal(sum[:], b[len(magic):head]) {
		return Saved{}, fmt.Errorf("last state: %s is damaged", path)
	}
	var saved Saved
	if err := gob.NewDecoder(bytes.NewReader(b[head:])).Decode(&saved); err != nil {
		return Saved{}, fmt.Errorf("last state: %s: %w", path, err)
	}
	return saved, nil
}

// save writes the state beside the old file and renames it.
func save(path string, saved Saved) (err error) {
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path+".new"))
		}
	}()
	defer file.Close()
	head := len(magic) + sha256.Size
	if _, err := file.Seek(int64(head), io.SeekStart); err != nil {
		return err
	}
	sum := sha256.New()
	buffered := bufio.NewWriterSize(io.MultiWriter(file, sum), 1<<20)
	if err := gob.NewEncoder(buffered).Encode(saved); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	if _, err := file.WriteAt(append(append([]byte{}, magic...), sum.Sum(nil)...), 0); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Keep writes the state to path whenever it changed, and once more when ctx ends.
// A change is written at once after a quiet time, else after a tenth of a second
// or as long as keeps writing to a sixth of the time. versions is what the state's
// resources are at; what is about to change has none there.
func (s *Store) Keep(ctx context.Context, path string, versions func() map[string]map[string]string, log *slog.Logger) error {
	written := uint64(0)
	var ended time.Time // the last write
	pause := time.Duration(0)
	for {
		snapshot := s.Snapshot()
		// Policies come first, and are no state to start from: what is should not
		// have to wait for them to be written.
		if snapshot.Generation() == written || written == 0 && len(snapshot.Workloads()) == 0 {
			select {
			case <-snapshot.Changed():
			case <-ctx.Done():
				return nil
			}
		}
		// At once after a quiet time: what a connection was decided with should be
		// on disk before anything can happen to the agent.
		timer := time.NewTimer(pause - time.Since(ended))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		started := time.Now()
		saved, generation, err := s.saved(versions)
		if err == nil {
			err = save(path, saved)
		}
		if err != nil {
			log.Warn("state not kept for a restart; trying again", "file", path, "err", err)
		} else {
			written = generation
		}
		if ctx.Err() != nil {
			return nil
		}
		ended = time.Now()
		pause = max(saveEvery, 5*ended.Sub(started))
	}
}

// readAttempts is how often a state is read again that changed while being read.
const readAttempts = 20

var errBusy = errors.New("it changes faster than it can be read")

// saved is a state and the versions that belong to it: the snapshot is the same
// one before and after the versions are read.
func (s *Store) saved(versions func() map[string]map[string]string) (Saved, uint64, error) {
	for range readAttempts {
		snapshot := s.Snapshot()
		held := versions()
		if s.Snapshot() == snapshot {
			return Saved{Versions: held, State: mesh.Delta{
				Workloads: snapshot.Workloads(), Services: snapshot.Services(), Policies: snapshot.AllPolicies(),
			}}, snapshot.Generation(), nil
		}
	}
	return Saved{}, 0, errBusy
}
