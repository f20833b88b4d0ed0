package telemetry

import (
	"bufio"
	"io"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// lineQueue bounds the lines that wait for a slow output. What comes past it is
// dropped and counted: a log must not hold up traffic.
const lineQueue = 8_192

// LineWriter writes lines from many goroutines to one output, without making
// them wait.
type LineWriter struct {
	queue   chan []byte
	dropped prometheus.Counter

	closeOnce sync.Once
	done      chan struct{}

	// mu guards closed against a Write that races with Close.
	mu     sync.RWMutex
	closed bool
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
	w := &LineWriter{queue: make(chan []byte, lineQueue), dropped: dropped, done: make(chan struct{})}
	go w.drain(out)
	return w
}

// Beside starts writing to a further output; its dropped lines count with w's.
func (w *LineWriter) Beside(out io.Writer) *LineWriter { return newLineWriter(out, w.dropped) }

// Write queues a line, which must end in a newline and is kept.
func (w *LineWriter) Write(line []byte) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		w.dropped.Inc()
		return
	}
	select {
	case w.queue <- line:
	default:
		w.dropped.Inc()
	}
}

// Close writes what is queued and ends. It may be called again.
func (w *LineWriter) Close() {
	w.closeOnce.Do(func() {
		w.mu.Lock()
		w.closed = true
		w.mu.Unlock()
		close(w.queue)
	})
	<-w.done
}

// drain writes in batches: it flushes when nothing waits.
func (w *LineWriter) drain(out io.Writer) {
	defer close(w.done)
	buffered := bufio.NewWriterSize(out, 64<<10)
	for line := range w.queue {
		if _, err := buffered.Write(line); err != nil {
			w.dropped.Inc()
			buffered.Reset(out)
			continue
		}
		if len(w.queue) == 0 {
			if err := buffered.Flush(); err != nil {
				w.dropped.Inc()
				buffered.Reset(out)
			}
		}
	}
}
