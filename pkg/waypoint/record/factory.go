// Package record makes of exchanges and connections that are over what operators
// see: Istio's metrics, and access logs in Envoy's formats. cmd/waypoint makes a
// [Factory] and gives it to the engine.
package record

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// maxFiles bounds the files that access logs may be written to.
const maxFiles = 64

// Options of a [Factory].
type Options struct {
	Registry *prometheus.Registry // must be non-nil
	// Stdout is where logs to /dev/stdout go. It must be non-nil.
	Stdout io.Writer
	// Cluster is the filter metadata of a cluster by its name, nil where there is none;
	// it tells what was asked for where nothing was chosen. Or nil.
	Cluster func(name string) streaminfo.Metadata
	Logger  *slog.Logger // must be non-nil
}

// Factory makes recorders.
type Factory struct {
	o    Options
	http *httpMetrics
	tcp  *tcpMetrics
	out  *telemetry.LineWriter

	// mu guards below.
	mu    sync.Mutex
	files map[string]*telemetry.LineWriter
	open  []io.Closer
}

var _ waypoint.Recorders = (*Factory)(nil)

// NewFactory registers the metrics. Close it.
func NewFactory(o Options) (*Factory, error) {
	if o.Registry == nil || o.Stdout == nil || o.Logger == nil {
		return nil, errors.New("record: Registry, Stdout and Logger must be set")
	}
	f := &Factory{o: o, files: map[string]*telemetry.LineWriter{}}
	var err error
	if f.http, err = newHTTPMetrics(f); err != nil {
		return nil, err
	}
	if f.tcp, err = newTCPMetrics(f); err != nil {
		return nil, err
	}
	if f.out, err = telemetry.NewLineWriter(o.Stdout, o.Registry); err != nil {
		return nil, err
	}
	return f, nil
}

// Close writes what is queued.
func (f *Factory) Close() {
	f.out.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.files {
		w.Close()
	}
	for _, c := range f.open {
		_ = c.Close() // its lines were written
	}
}

// HTTP implements [waypoint.Recorders].
func (f *Factory) HTTP(c waypoint.HTTPLoggers) ([]hcm.Recorder, error) {
	loggers, err := f.loggers(c.Loggers)
	return append([]hcm.Recorder{f.http}, loggers...), err
}

// TCP implements [waypoint.Recorders].
func (f *Factory) TCP(c waypoint.TCPLoggers) ([]hcm.Recorder, error) {
	loggers, err := f.loggers(c.Loggers)
	return append([]hcm.Recorder{f.tcp}, loggers...), err
}

// statsLogger makes metrics of its own; those here are always made.
const statsLogger = "envoy.extensions.access_loggers.stats.v3.Config"

func (f *Factory) loggers(list []*accesslogv3.AccessLog) (out []hcm.Recorder, err error) {
	for i, c := range list {
		l, err := f.logger(c)
		if err != nil {
			return nil, fmt.Errorf("[%d] %s: %w", i, c.GetName(), err)
		}
		if l != nil {
			out = append(out, l)
		}
	}
	return out, nil
}

func (f *Factory) logger(c *accesslogv3.AccessLog) (hcm.Recorder, error) {
	config := c.GetTypedConfig()
	l := &logger{}
	var err error
	switch file, stdout := (&filev3.FileAccessLog{}), (&streamv3.StdoutAccessLog{}); {
	case string(config.MessageName()) == statsLogger:
		return nil, nil
	case config.MessageIs(file):
		if err = config.UnmarshalTo(file); err != nil {
			return nil, err
		}
		if l.lines, err = f.file(file.GetPath()); err != nil {
			return nil, err
		}
		err = l.fileFormat(file)
	case config.MessageIs(stdout):
		if err = config.UnmarshalTo(stdout); err != nil {
			return nil, err
		}
		l.lines = f.out
		err = l.setFormat(stdout.GetLogFormat())
	default:
		f.o.Logger.Warn("access logger is not supported: it writes nothing", "type", config.GetTypeUrl())
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l.filter, err = newFilter(c.GetFilter(), f.o.Logger)
	return l, err
}

// file is the writer of a path; one for all loggers that name it.
func (f *Factory) file(path string) (*telemetry.LineWriter, error) {
	if path == "/dev/stdout" || path == "" {
		return f.out, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.files[path]; w != nil {
		return w, nil
	}
	if len(f.files) >= maxFiles {
		return nil, fmt.Errorf("path: more than %d files", maxFiles)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("path: %w", err)
	}
	w := f.out.Beside(file)
	f.files[path] = w
	f.open = append(f.open, file)
	return w, nil
}
