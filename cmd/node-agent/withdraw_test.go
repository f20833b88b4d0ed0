package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/kube"
)

// Agents are waited for until they are gone, but for those that are not ready, which are named
// with what to run; one that does not go is an error, and so is an API that refuses.
func TestWithdraw(t *testing.T) {
	const pod = `{"metadata":{"name":"z"},"spec":{"nodeName":%q},"status":{"conditions":[{"type":"Ready","status":%q}]}}`
	up, also, down := fmt.Sprintf(pod, "up", "True"), fmt.Sprintf(pod, "also", "True"), fmt.Sprintf(pod, "down", "False")
	const done = `200 {}`
	for _, c := range []struct {
		name   string
		pods   []string // what each look finds; the last stays
		answer string   // to the deletion
		err    string
		said   []string
	}{
		{"all go, one after the other", []string{up + "," + also, up + "," + also, also, ""}, done, "", []string{"agents of 2 nodes"}},
		{"one is not ready", []string{up + "," + down, up + "," + down, down}, done, "", []string{"agents of 1 nodes", "kubectl debug node/down --profile=sysadmin --image=hub/node-agent:1"}},
		{"one does not go", []string{up + "," + also, also}, done, "agents still run on these nodes: also", nil},
		{"none is there", []string{""}, gone, "", []string{"agents of 0 nodes"}},
		{"it may not", []string{up}, forbidden, "delete the agents' DaemonSet: ", nil},
		{"something else has the API's address", []string{""}, noPage, "delete the agents' DaemonSet: ", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			looks, deleted := 0, false
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				switch {
				case r.Method == http.MethodDelete && r.URL.Path == "/apis/apps/v1/namespaces/mesh/daemonsets/ztunnel":
					deleted = true
					code := 0
					_, _ = fmt.Sscan(c.answer, &code)
					w.WriteHeader(code)
					_, _ = io.WriteString(w, c.answer[4:])
				case r.URL.Query().Get("continue") == "" && r.URL.Query().Get("labelSelector") == "app=ztunnel": // an empty page before
					_, _ = io.WriteString(w, `{"metadata":{"continue":"next"},"items":[]}`)
				default:
					if looks > 0 && !deleted {
						t.Error("it waits before it has deleted")
					}
					_, _ = fmt.Fprintf(w, `{"items":[%s]}`, c.pods[min(looks, len(c.pods)-1)])
					looks++
				}
			}))
			defer server.Close()
			api, err := kube.New(kube.Config{Server: server.URL, CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), Token: "t"})
			if err != nil {
				t.Fatal(err)
			}
			patience := time.Minute
			if strings.Contains(c.err, "still run") {
				patience = time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var out bytes.Buffer
			err = (&withdrawal{api: api, namespace: "mesh", image: "hub/node-agent:1", look: time.Millisecond, out: &out}).run(ctx)
			if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v, want %q", err, c.err)
			}
			if err == nil && looks < len(c.pods) {
				t.Error("it ends while agents run")
			}
			for _, want := range c.said {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is not said: %s", want, out.String())
				}
			}
		})
	}
}
