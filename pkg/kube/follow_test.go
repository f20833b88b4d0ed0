package kube

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func client(t *testing.T, serve http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewTLSServer(serve)
	t.Cleanup(s.Close)
	c, err := New(Config{Server: s.URL + "/", CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func namespace(name, version string) string {
	return fmt.Sprintf(`{"metadata":{"name":%q,"resourceVersion":%q,"annotations":{"big":"x","kubernetes.io/config.hash":"h"}}}`, name, version)
}

// A collection is read in pages, watched from there, taken up again after the end of
// a watch where it was, and read anew when that is too far back.
func TestFollow(t *testing.T) {
	var lists, watches atomic.Int32
	var asked []string
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.Header.Get("Authorization") != "Bearer secret" || q.Get("fieldSelector") != "spec.nodeName=n1" {
			t.Errorf("%v %v", r.Header, q)
		}
		if q.Get("watch") == "" {
			switch {
			case lists.Add(1) > 2: // after the gap
				_, _ = io.WriteString(w, `{"metadata":{"resourceVersion":"20"},"items":[`+namespace("c", "20")+`]}`)
			case q.Get("continue") == "":
				_, _ = io.WriteString(w, `{"metadata":{"resourceVersion":"9","continue":"more"},"items":[`+namespace("a", "5")+`]}`)
			default:
				_, _ = io.WriteString(w, `{"metadata":{"resourceVersion":"9"},"items":[`+namespace("b", "6")+`]}`)
			}
			return
		}
		asked = append(asked, q.Get("resourceVersion"))
		switch watches.Add(1) {
		case 1:
			_, _ = io.WriteString(w, `{"type":"ADDED","object":`+namespace("n", "10")+`}`+"\n"+`{"type":"BOOKMARK","object":`+namespace("", "12")+`}`+"\n")
		case 2:
			_, _ = io.WriteString(w, `{"type":"DELETED","object":`+namespace("n", "13")+`}`+"\n"+`{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}`+"\n")
		case 3:
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var seen []string
	names := func(all []Namespace) string {
		var out []string
		for _, n := range all {
			out = append(out, n.Name)
		}
		return strings.Join(out, ",")
	}
	Follow(ctx, c, "/api/v1/things", "spec.nodeName=n1", Follower[Namespace]{
		Replace: func(all []Namespace) {
			seen = append(seen, "all "+names(all))
			if len(seen) > 1 {
				cancel()
			}
			if got := all[0].Annotations; len(got) != 1 || got[ConfigHash] != "h" {
				t.Errorf("annotations %v", got)
			}
		},
		Put: func(n Namespace) { seen = append(seen, "put "+n.Name) }, Delete: func(n Namespace) { seen = append(seen, "delete "+n.Name) },
	}, slog.New(slog.DiscardHandler))
	if want := []string{"all a,b", "put n", "delete n", "all c"}; !slices.Equal(seen, want) {
		t.Errorf("%q, want %q", seen, want)
	}
	if len(asked) < 2 || asked[0] != "9" || asked[1] != "12" {
		t.Errorf("watched from %q", asked)
	}
}

func TestErrorsAreToldApart(t *testing.T) {
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		code := map[string]int{"/missing": 404, "/mine": 403, "/stale": 409}[r.URL.Path]
		w.WriteHeader(code)
		if code == 404 {
			_, _ = io.WriteString(w, `{"kind":"Status","code":404,"reason":"NotFound","message":"pods \"x\" not found"}`)
		}
	})
	if err := c.Get(t.Context(), "/missing", nil); !IsNotFound(err) || !strings.Contains(err.Error(), `pods "x" not found`) {
		t.Errorf("%v", err)
	}
	if err := c.Patch(t.Context(), "/mine", map[string]any{}); !IsForbidden(err) {
		t.Errorf("%v", err)
	}
	if err := c.Patch(t.Context(), "/stale", map[string]any{}); !IsConflict(err) {
		t.Errorf("%v", err)
	}
	if _, err := New(Config{Server: "https://x", CA: []byte("none")}); err == nil {
		t.Error("no certificate is taken for one")
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := InCluster("", t.TempDir()); err == nil || !strings.Contains(err.Error(), "KUBERNETES_SERVICE_HOST") {
		t.Errorf("%v", err)
	}
}
