package local

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/kube"
)

// api is a Kubernetes API of pods and namespaces.
type api struct {
	*httptest.Server

	mu       sync.Mutex
	version  int
	objects  map[string]map[string]any // by path
	watchers map[chan []byte]string    // by collection
	log      []logged
	events   []string
	broken   map[string]bool // paths that are answered 500
}

func newAPI(t *testing.T) (*api, *kube.Client) {
	a := &api{objects: map[string]map[string]any{}, watchers: map[chan []byte]string{}, broken: map[string]bool{}}
	a.Server = httptest.NewTLSServer(http.HandlerFunc(a.serve))
	t.Cleanup(func() {
		a.cut()
		a.Close()
	})
	c, err := kube.New(kube.Config{Server: a.URL, CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}), Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	return a, c
}

// logged is an event that a later watch may ask for.
type logged struct {
	version    int
	collection string
	line       []byte
}

// cut ends all watches.
func (a *api) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for w := range a.watchers {
		close(w)
	}
	clear(a.watchers)
}

func collection(path string) string {
	if strings.Contains(path, "/pods") {
		return "/api/v1/pods"
	}
	return "/api/v1/namespaces"
}

// put makes or changes an object from YAML-like JSON.
func (a *api) put(path, object string) {
	var o map[string]any
	if err := json.Unmarshal([]byte(object), &o); err != nil {
		panic(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.store(path, o)
}

func (a *api) store(path string, o map[string]any) {
	a.version++
	o["metadata"].(map[string]any)["resourceVersion"] = fmt.Sprint(a.version)
	kind := "MODIFIED"
	if a.objects[path] == nil {
		kind = "ADDED"
	}
	a.objects[path] = o
	a.tell(path, kind, o)
}

func (a *api) tell(path, kind string, o map[string]any) {
	b, _ := json.Marshal(map[string]any{"type": kind, "object": o})
	a.log = append(a.log, logged{a.version, collection(path), b})
	for w, c := range a.watchers {
		if c == collection(path) {
			w <- b
		}
	}
}

func (a *api) remove(path string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.objects[path]
	delete(a.objects, path)
	a.version++
	a.tell(path, "DELETED", o)
}

func (a *api) annotation(path, name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	meta, _ := a.objects[path]["metadata"].(map[string]any)
	all, _ := meta["annotations"].(map[string]any)
	s, _ := all[name].(string)
	return s
}

func (a *api) told() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.events...)
}

func (a *api) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	if a.broken[r.URL.Path] {
		a.mu.Unlock()
		http.Error(w, "broken", http.StatusInternalServerError)
		return
	}
	switch {
	case r.Method == http.MethodPost:
		b, _ := io.ReadAll(r.Body)
		a.events = append(a.events, string(b))
		a.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodPatch:
		defer a.mu.Unlock()
		a.patch(w, r, strings.TrimSuffix(r.URL.Path, "/status"))
	case r.URL.Query().Get("watch") != "":
		a.watch(w, r)
	case r.URL.Path == "/api/v1/pods" || r.URL.Path == "/api/v1/namespaces":
		defer a.mu.Unlock()
		items := []any{}
		for path, o := range a.objects {
			if collection(path) == r.URL.Path {
				items = append(items, o)
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"metadata": map[string]any{"resourceVersion": fmt.Sprint(a.version)}, "items": items})
	default:
		defer a.mu.Unlock()
		o := a.objects[r.URL.Path]
		if o == nil {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"kind":"Status","code":404,"reason":"NotFound","message":"not found"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(o)
	}
}

func (a *api) patch(w http.ResponseWriter, r *http.Request, path string) {
	o := a.objects[path]
	if o == nil {
		http.NotFound(w, r)
		return
	}
	var p struct {
		Metadata struct {
			UID         string
			Annotations map[string]*string
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil || r.Header.Get("Content-Type") != "application/merge-patch+json" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	meta := o["metadata"].(map[string]any)
	if p.Metadata.UID != meta["uid"] {
		w.WriteHeader(http.StatusConflict)
		return
	}
	all, _ := meta["annotations"].(map[string]any)
	if all == nil {
		all = map[string]any{}
		meta["annotations"] = all
	}
	for k, v := range p.Metadata.Annotations {
		delete(all, k)
		if v != nil {
			all[k] = *v
		}
	}
	a.store(path, o)
}

// watch is called with mu held, and lets it go.
func (a *api) watch(w http.ResponseWriter, r *http.Request) {
	events := make(chan []byte, 100)
	from, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	for _, l := range a.log {
		if l.collection == r.URL.Path && l.version > from {
			events <- l.line
		}
	}
	a.watchers[events] = r.URL.Path
	a.mu.Unlock()
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for {
		select {
		case b, ok := <-events:
			if !ok {
				return
			}
			_, _ = w.Write(append(b, '\n'))
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			a.mu.Lock()
			delete(a.watchers, events)
			a.mu.Unlock()
			return
		}
	}
}
