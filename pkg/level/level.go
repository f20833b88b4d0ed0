// Package level is the level of a process's log, with levels of their own for lines about
// single workloads, which are set while the process runs.
//
// For the programs and what shows their admin pages.
package level

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what has a level of its own: how many at a time, and how long each has it
// unless it is set again. A text must be long enough to mean one workload.
const (
	maxAbout    = 32
	aboutLasts  = time.Hour
	minAboutLen = 3
	maxAboutLen = 253
)

// Levels is the level of a process's log, and those of the lines that are about single
// workloads: what is said of one can be read without all that is said of others.
type Levels struct {
	slog.LevelVar

	// least is the lowest level of those below, so that a line below it costs nothing.
	least atomic.Int64
	now   func() time.Time

	// mu guards below.
	mu    sync.Mutex
	about map[string]levelUntil
}

type levelUntil struct {
	level slog.Level
	until time.Time
}

// none is lower than no line's level.
const none = int64(1) << 32

// New begins with one level for all.
func New(all slog.Level) *Levels {
	l := &Levels{now: time.Now, about: map[string]levelUntil{}}
	l.Set(all)
	l.least.Store(none)
	return l
}

// Handler has next, which must take every level, write what the levels let through.
func (l *Levels) Handler(next slog.Handler) slog.Handler { return &levelled{l, next, nil} }

// levelled lets lines through. A line is about a workload if one of its attributes holds
// the workload's text.
type levelled struct {
	levels *Levels
	next   slog.Handler
	bound  []slog.Attr
}

func (h *levelled) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.levels.Level() || int64(level) >= h.levels.least.Load()
}

func (h *levelled) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < h.levels.Level() && !h.levels.wants(r, h.bound) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

func (h *levelled) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &levelled{h.levels, h.next.WithAttrs(attrs), slices.Concat(h.bound, attrs)}
}

func (h *levelled) WithGroup(name string) slog.Handler {
	return &levelled{h.levels, h.next.WithGroup(name), h.bound}
}

// wants tells whether a line is about a workload that has its level.
func (l *Levels) wants(r slog.Record, bound []slog.Attr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetLocked()
	found := false
	look := func(a slog.Attr) bool {
		if a.Value.Kind() == slog.KindString {
			for text, of := range l.about {
				found = found || r.Level >= of.level && names(a.Value.String(), text)
			}
		}
		return !found
	}
	for _, a := range bound {
		look(a)
	}
	r.Attrs(look)
	return found
}

// names tells whether a line's word holds a text that is no part of a longer name.
func names(word, text string) bool {
	for {
		i := strings.Index(word, text)
		if i < 0 {
			return false
		}
		before, after := word[:i], word[i+len(text):]
		if (before == "" || !ofName(before[len(before)-1])) && (after == "" || !ofName(after[0])) {
			return true
		}
		word = after
	}
}

func ofName(b byte) bool {
	return b == '-' || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}

// forgetLocked takes away what has had its time.
func (l *Levels) forgetLocked() {
	now := l.now()
	maps.DeleteFunc(l.about, func(_ string, of levelUntil) bool { return !now.Before(of.until) })
	least := none
	for _, of := range l.about {
		least = min(least, int64(of.level))
	}
	l.least.Store(least)
}

// setAbout gives the lines that hold one of the texts a level, or the process's again with
// nil.
func (l *Levels) setAbout(texts []string, level *slog.Level) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetLocked()
	if level != nil {
		fresh := 0
		for _, text := range texts {
			if _, known := l.about[text]; !known {
				fresh++
			}
		}
		if len(l.about)+fresh > maxAbout {
			return fmt.Errorf("%d workloads or services have a level of their own already: reset some", len(l.about))
		}
	}
	for _, text := range texts {
		if level == nil {
			delete(l.about, text)
		} else {
			l.about[text] = levelUntil{*level, l.now().Add(aboutLasts)}
		}
	}
	l.forgetLocked()
	return nil
}

// ServeHTTP shows the levels of lines about the texts ?about= (several may be given), or
// with POST sets them for an hour: &level=debug|info|warn|error, or &reset.
func (l *Levels) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	texts, level, err := query["about"], (*slog.Level)(nil), error(nil)
	if slices.ContainsFunc(texts, func(t string) bool { return len(t) < minAboutLen || len(t) > maxAboutLen }) || len(texts) > maxAbout {
		err = fmt.Errorf("about: want up to %d texts of %d to %d bytes", maxAbout, minAboutLen, maxAboutLen)
	}
	if text := query.Get("level"); text != "" && err == nil {
		level = new(slog.Level)
		if level.UnmarshalText([]byte(text)) != nil {
			err = fmt.Errorf("level %q: want debug, info, warn or error", text)
		}
	}
	if err == nil && (level != nil || query.Has("reset")) {
		if r.Method != http.MethodPost {
			http.Error(w, "changing the level needs POST", http.StatusMethodNotAllowed)
			return
		}
		if level != nil && query.Has("reset") {
			err = errors.New("level cannot be combined with reset")
		} else {
			err = l.setAbout(texts, level)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetLocked()
	for _, text := range texts {
		if of, own := l.about[text]; own {
			fmt.Fprintf(w, "%s: %s until %s\n", text, strings.ToLower(of.level.String()), of.until.UTC().Format(time.RFC3339))
		} else {
			fmt.Fprintf(w, "%s: %s, as all of the process\n", text, strings.ToLower(l.Level().String()))
		}
	}
}
