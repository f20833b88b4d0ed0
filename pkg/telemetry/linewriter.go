package telemetry

import (
	"io"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// maxPending bounds the bytes of lines that wait for a slow output. What comes past
	// it is dropped and counted: a log must not hold up traffic.
	maxPending = 8 << 20
	// batch is how many bytes are written without waiting for more, and gather how long
	// fewer wait: a system call for each line would cost more than the line.
	batch  = 32 << 10
	gather = 20 * time.Millisecond
)

// LineWriter writes lines from many goroutines to one output, without making
// them wait.
type LineWriter struct {
	dropped prometheus.Counter
	wake    chan struct{} // there is something
	full    chan struct{} // there is a batch
	closing chan struct{}
	done    chan struct{}

	// mu guards below.
	mu      sync.Mutex
	pending []byte
	lines   int // in pending
	closed  bool
}

// NewLineWriter starts writing to out and registers its counter of dropped lines.
func NewLineWriter(out io.Writer, registry *prometheus.Registry) (*LineWriter, error) {
	dropped := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "fairlead_access_log_dropped_total", Help: "Access records dropped because the output was too slow.",
	})
	if err := registry.Register(dropped); err != nil {
		return nil, err
	}
	return newLineWriter(out, dropped), nil
}

func newLineWriter(out io.Writer, dropped prometheus.Counter) *LineWriter {
	w := &LineWriter{
		dropped: dropped, wake: make(chan struct{}, 1), full: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
	}
	go w.drain(out)
	return w
}

// Beside starts writing to a further output; its dropped lines count with w's.
func (w *LineWriter) Beside(out io.Writer) *LineWriter { return newLineWriter(out, w.dropped) }

// Write queues a copy of a line, which must end in a newline.
func (w *LineWriter) Write(line []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.pending)+len(line) > maxPending {
		w.dropped.Inc()
		return
	}
	before := len(w.pending)
	w.pending = append(w.pending, line...)
	w.lines++
	if before == 0 {
		signal(w.wake)
	}
	if before < batch && len(w.pending) >= batch {
		signal(w.full)
	}
}

// signal wakes who waits, or who will.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Close writes what is queued and ends. It may be called again.
func (w *LineWriter) Close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.closing)
	}
	w.mu.Unlock()
	<-w.done
}

// drain writes what has gathered.
func (w *LineWriter) drain(out io.Writer) {
	defer close(w.done)
	timer := time.NewTimer(gather)
	defer timer.Stop()
	var spare []byte
	for ended := false; !ended; {
		select {
		case <-w.wake:
			timer.Reset(gather)
			select {
			case <-timer.C:
			case <-w.full:
			case <-w.closing:
			}
		case <-w.closing:
			ended = true
		}
		lines := 0
		w.mu.Lock()
		spare, w.pending, lines, w.lines = w.pending, spare[:0], w.lines, 0
		w.mu.Unlock()
		if len(spare) == 0 {
			continue
		}
		if _, err := out.Write(spare); err != nil {
			w.dropped.Add(float64(lines))
		}
		if cap(spare) > 16*batch { // a burst does not keep its room
			spare = nil
		}
	}
}
