package podwatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
)

// Sandbox is a pod's network as the CNI plugin knows it, before the pod has a
// process.
type Sandbox struct {
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// NetNS is the path of its network namespace on the node.
	NetNS string       `json:"netns"`
	IPs   []netip.Addr `json:"ips,omitempty"`
}

// Key is "namespace/name", for logs.
func (s *Sandbox) Key() string { return s.Namespace + "/" + s.Name }

func (s *Sandbox) validate() error {
	for field, value := range map[string]string{"uid": s.UID, "namespace": s.Namespace, "name": s.Name} {
		if value == "" || len(value) > maxName {
			return fmt.Errorf("%s %q: want 1 to %d characters", field, value, maxName)
		}
	}
	if s.NetNS != "" && !filepath.IsAbs(s.NetNS) {
		return fmt.Errorf("netns %q: want an absolute path", s.NetNS)
	}
	if len(s.IPs) > maxAddresses {
		return fmt.Errorf("ips: want at most %d addresses, got %d", maxAddresses, len(s.IPs))
	}
	return nil
}

// Sandboxes decides on pods that the CNI plugin tells of.
type Sandboxes interface {
	// Add returns when the pod is captured, or is found not to be meant to be. An
	// error holds the pod back.
	Add(ctx context.Context, s Sandbox) (Status, error)
	// Remove forgets a pod whose sandbox ends. One that has another sandbox by now,
	// or is not known, is no error.
	Remove(ctx context.Context, s Sandbox) error
}

// HandleSandboxes has the server answer the CNI plugin. Call it before Serve.
func (s *Server) HandleSandboxes(boxes Sandboxes) {
	handle := func(do func(ctx context.Context, box Sandbox) (Status, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var box Sandbox
			if !decode(w, r, &box) {
				return
			}
			err := box.validate()
			if err == nil && box.UID != r.PathValue("uid") {
				err = errors.New("uid differs from the path's")
			}
			if err != nil {
				answer(w, http.StatusBadRequest, failure(err))
				return
			}
			status, err := do(r.Context(), box)
			if err != nil {
				s.log.Error("pod of the CNI plugin", "pod", box.Key(), "uid", box.UID, "method", r.Method, "err", err)
				answer(w, http.StatusInternalServerError, failure(err))
				return
			}
			answer(w, http.StatusOK, status)
		}
	}
	s.mux.Handle("PUT /v1/sandboxes/{uid}", handle(boxes.Add))
	s.mux.Handle("DELETE /v1/sandboxes/{uid}", handle(func(ctx context.Context, box Sandbox) (Status, error) {
		return Status{}, boxes.Remove(ctx, box)
	}))
}

// AddSandbox tells the agent of a pod before its first process, and waits until it
// is captured where it is meant to be.
func (c *Client) AddSandbox(ctx context.Context, s Sandbox) (Status, error) {
	var st Status
	err := c.do(ctx, http.MethodPut, "/v1/sandboxes/"+url.PathEscape(s.UID), s, &st)
	return st, err
}

// RemoveSandbox tells the agent that a pod's sandbox ends.
func (c *Client) RemoveSandbox(ctx context.Context, s Sandbox) error {
	return c.do(ctx, http.MethodDelete, "/v1/sandboxes/"+url.PathEscape(s.UID), s, nil)
}
