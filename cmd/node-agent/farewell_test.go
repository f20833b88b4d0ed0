package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/kube"
)

// What the API may answer.
const (
	thereIs   = `200 {"metadata":{"name":"ztunnel"}}`
	isGoing   = `200 {"metadata":{"name":"ztunnel","deletionTimestamp":"2026-01-01T00:00:00Z"}}`
	gone      = `404 {"code":404,"reason":"NotFound","message":"not found","details":{"name":"ztunnel","group":"apps","kind":"daemonsets"}}`
	otherGone = `404 {"code":404,"reason":"NotFound","message":"the server could not find the requested resource","details":{}}`
	noPage    = `404 page not found`
	forbidden = `403 {"code":403,"reason":"Forbidden","message":"may not","details":{"name":"ztunnel","kind":"daemonsets"}}`
	unknown   = `401 {"code":401,"reason":"Unauthorized","message":"Unauthorized"}`
	broken    = `500 oops`
	away      = `503 {"code":503,"message":"etcd is away"}`
	silence   = ``
	nsThere   = `200 {"metadata":{"name":"mesh"}}`
	nsGoing   = `200 {"metadata":{"name":"mesh","deletionTimestamp":"2026-01-01T00:00:00Z"}}`
	nsGone    = `404 {"code":404,"reason":"NotFound","message":"not found","details":{"name":"mesh","kind":"namespaces"}}`
)

// api answers by the path's end and the token.
func api(t *testing.T, answers map[string]string) func(token string) *kube.Client {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		last := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		if r.URL.Query().Get("watch") != "" {
			last = "watch"
		}
		answer, ok := answers[token+" "+last]
		if !ok {
			answer = answers[last]
		}
		if answer == silence {
			<-r.Context().Done()
			return
		}
		code := 0
		_, _ = fmt.Sscan(answer, &code)
		w.WriteHeader(code)
		_, _ = io.WriteString(w, answer[4:])
		if last == "watch" {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return func(token string) *kube.Client {
		c, err := kube.New(kube.Config{Server: server.URL, CA: ca, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

// An agent that ends takes for an uninstallation what says so, and nothing else: a pod
// that is let go in doubt talks in clear.
func TestFarewell(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers map[string]string
		heard   answer
		want    bool
	}{
		{"the DaemonSet is there", map[string]string{"ztunnel": thereIs, "mesh": nsThere}, there, false},
		{"it is gone", map[string]string{"ztunnel": gone, "mesh": nsThere}, unclear, true},
		{"it goes", map[string]string{"ztunnel": isGoing, "mesh": nsThere}, there, true},
		{"its namespace goes", map[string]string{"ztunnel": thereIs, "mesh": nsGoing}, there, true},
		{"its namespace is gone, and the right with it", map[string]string{"ztunnel": forbidden, "mesh": nsGone}, unclear, true},
		{"the right to ask is gone", map[string]string{"ztunnel": forbidden, "mesh": forbidden}, there, false},
		{"the right is gone, and nothing was heard", map[string]string{"ztunnel": forbidden, "mesh": forbidden}, unclear, false},
		{"the right is gone, after the deletion was heard", map[string]string{"ztunnel": forbidden, "mesh": forbidden}, deleted, true},
		{"it was deleted and is there again", map[string]string{"ztunnel": thereIs, "mesh": nsThere}, deleted, false},
		{"the token has ended, the account's says that it is there", map[string]string{"pod ztunnel": unknown, "pod mesh": unknown, "ztunnel": thereIs, "mesh": nsThere}, there, false},
		{"the token has ended, the account's says that it is gone", map[string]string{"pod ztunnel": unknown, "pod mesh": unknown, "ztunnel": gone, "mesh": nsThere}, there, true},
		{"nobody is known any more", map[string]string{"ztunnel": unknown, "mesh": unknown}, there, false},
		{"nobody is known, after the deletion was heard", map[string]string{"ztunnel": unknown, "mesh": unknown}, deleted, true},
		{"the API is broken", map[string]string{"ztunnel": broken, "mesh": broken}, there, false},
		{"the API's store is away", map[string]string{"ztunnel": away, "mesh": away}, there, false},
		{"the API says nothing", map[string]string{"ztunnel": silence, "mesh": silence}, there, false},
		{"something else has the API's address", map[string]string{"ztunnel": noPage, "mesh": noPage}, there, false},
		{"the API does not know the kind yet", map[string]string{"ztunnel": otherGone, "mesh": otherGone}, there, false},
		{"something answers yes to all", map[string]string{"ztunnel": "200 {}", "mesh": "200 {}"}, there, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			as := api(t, c.answers)
			var log bytes.Buffer
			f := &farewell{
				api: as("pod"), account: func() (*kube.Client, error) { return as("account"), nil },
				namespace: "mesh", daemonSet: "ztunnel", patience: time.Second, log: slog.New(slog.NewTextHandler(&log, nil)),
			}
			f.hear(c.heard)
			if got := f.isUninstalled(t.Context()); got != c.want {
				t.Errorf("uninstalled: %v, want %v", got, c.want)
			}
			said := strings.Contains(log.String(), "node-agent uninstall")
			clear := c.want || strings.HasPrefix(c.answers["ztunnel"], "200 {\"m")
			if said == clear {
				t.Errorf("what an operator can do is said: %v, want %v; %s", said, !clear, log.String())
			}
		})
	}
}

// A deletion is heard while the agent may still ask.
func TestFarewellHears(t *testing.T) {
	for name, c := range map[string]struct {
		list, watch string
		want        answer
	}{
		"there":               {`{"items":[{"metadata":{"name":"ztunnel"}}]}`, "", there},
		"gone before":         {`{"items":[]}`, "", deleted},
		"deleted":             {`{"items":[{"metadata":{"name":"ztunnel"}}]}`, `{"type":"DELETED","object":{"metadata":{"name":"ztunnel"}}}`, deleted},
		"going":               {`{"items":[{"metadata":{"name":"ztunnel"}}]}`, `{"type":"MODIFIED","object":{"metadata":{"name":"ztunnel","deletionTimestamp":"x"}}}`, deleted},
		"deleted, then there": {`{"items":[]}`, `{"type":"ADDED","object":{"metadata":{"name":"ztunnel"}}}`, there},
	} {
		t.Run(name, func(t *testing.T) {
			as := api(t, map[string]string{"daemonsets": "200 " + c.list, "watch": "200 " + c.watch})
			f := &farewell{api: as("pod"), namespace: "mesh", daemonSet: "ztunnel", log: slog.New(slog.DiscardHandler)}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- f.follow(ctx) }()
			for end := time.Now().Add(10 * time.Second); f.last() != c.want; runtime.Gosched() {
				if time.Now().After(end) {
					t.Fatalf("heard %v, want %v", f.last(), c.want)
				}
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
