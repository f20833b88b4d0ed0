package pages

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
)

// logger is the one that there is.
const logger = "waypoint"

// levels are Envoy's names, and ours.
var levels = map[string]slog.Level{
	"trace": slog.LevelDebug, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warning": slog.LevelWarn, "warn": slog.LevelWarn,
	"error": slog.LevelError, "critical": slog.LevelError, "off": slog.LevelError + 100,
}

// logging shows the level, or with POST sets it: ?level=debug and ?reset as with a node
// agent; ?waypoint=debug and ?paths=waypoint:debug as with Envoy, and istioctl. With ?about= it is
// that of lines about a service: see [level.Levels].
func (p *Pages) logging(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("about") {
		p.o.Level.ServeHTTP(w, r)
		return
	}
	want, err := p.wanted(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if want != nil {
		if r.Method != http.MethodPost {
			http.Error(w, "changing the level needs POST", http.StatusMethodNotAllowed)
			return
		}
		p.o.Level.Set(*want)
		p.o.Logger.Info("log level changed", "level", name(*want))
	}
	fmt.Fprintf(w, "active loggers:\n  %s: %s\n", logger, name(p.o.Level.Level()))
}

// wanted is the level that is asked for, or nil: none is.
func (p *Pages) wanted(r *http.Request) (*slog.Level, error) {
	query := r.URL.Query()
	value := query.Get("level")
	if query.Has("reset") || value == "reset" {
		return &p.initial, nil
	}
	if v := query.Get(logger); v != "" {
		value = v
	}
	for one := range strings.SplitSeq(query.Get("paths"), ",") {
		of, v, ok := strings.Cut(one, ":")
		if !ok {
			continue
		}
		if of != logger {
			return nil, fmt.Errorf("there is no logger %q: there is %q alone", of, logger)
		}
		value = v
	}
	if value == "" {
		for key := range query {
			return nil, fmt.Errorf("%q is not known: want level, reset, paths or %s", key, logger)
		}
		return nil, nil
	}
	l, ok := levels[strings.ToLower(value)]
	if !ok {
		return nil, fmt.Errorf("level %q: want debug, info, warning, error or off", value)
	}
	return &l, nil
}

// name is a level's in Envoy's words.
func name(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warning"
	case l > slog.LevelError:
		return "off"
	}
	return "error"
}
