package level

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// A level of a workload is its lines' alone, until it is taken back or its time is over.
func TestLevelOfOneWorkload(t *testing.T) {
	var out bytes.Buffer
	levels := New(slog.LevelInfo)
	now := time.Now()
	levels.now = func() time.Time { return now }
	log := slog.New(levels.Handler(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	pod, other := log.With("pod", "shop/web-1"), log.With("pod", "shop/web-10")
	said := func() string {
		out.Reset()
		pod.Debug("bound")
		log.Debug("in the line", "chain", "inbound-vip|80|http|web.shop.svc")
		other.Debug("another's")
		log.Debug("nobody's")
		log.Info("always")
		var words []string
		for line := range strings.Lines(out.String()) {
			_, rest, _ := strings.Cut(line, "msg=")
			words = append(words, strings.Trim(strings.Fields(rest)[0], `"`))
		}
		return strings.Join(words, " ")
	}
	ask := func(method, query string, code int) string {
		t.Helper()
		w := httptest.NewRecorder()
		levels.ServeHTTP(w, httptest.NewRequest(method, "/logging?"+query, nil))
		if w.Code != code {
			t.Errorf("%s %s: %d %s", method, query, w.Code, w.Body)
		}
		return w.Body.String()
	}
	want := func(when, words string) {
		t.Helper()
		if got := said(); got != words {
			t.Errorf("%s: %q, want %q", when, got, words)
		}
	}
	const about = "about=shop/web-1&about=web.shop.svc"
	want("at first", "always")
	ask("GET", about+"&level=debug", http.StatusMethodNotAllowed)
	want("asked to change by GET", "always")
	if got := ask("POST", about+"&level=debug", http.StatusOK); !strings.Contains(got, "shop/web-1: debug until ") {
		t.Errorf("said %q", got)
	}
	want("of one workload", "bound in always")
	ask("POST", "about=shop/web-1&reset", http.StatusOK)
	want("one of its texts taken back", "in always")
	now = now.Add(aboutLasts)
	want("after its time", "always")
	ask("POST", about+"&level=debug", http.StatusOK)
	now = now.Add(aboutLasts)
	if got := ask("GET", about, http.StatusOK); got != "shop/web-1: info, as all of the process\nweb.shop.svc: info, as all of the process\n" {
		t.Errorf("said %q", got)
	}
	levels.Set(slog.LevelDebug)
	want("of the whole process", "bound in another's nobody's always")
}

func TestLevelsAreBounded(t *testing.T) {
	levels := New(slog.LevelInfo)
	post := func(about ...string) int {
		w := httptest.NewRecorder()
		levels.ServeHTTP(w, httptest.NewRequest("POST", "/logging?"+url.Values{"about": about, "level": {"debug"}}.Encode(), nil))
		return w.Code
	}
	for _, wrong := range []string{"", "a", strings.Repeat("a", maxAboutLen+1)} {
		if post(wrong) != http.StatusBadRequest {
			t.Errorf("%q is taken", wrong)
		}
	}
	for i := range maxAbout {
		if post(fmt.Sprint("shop/web-", i)) != http.StatusOK {
			t.Fatalf("workload %d is not taken", i)
		}
	}
	if post("shop/one-more") != http.StatusBadRequest || post("shop/web-0") != http.StatusOK {
		t.Error("one more than there may be is taken, or one that is there is not")
	}
}
