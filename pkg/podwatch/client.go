package podwatch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Client calls an agent's enrolment interface.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the agent that listens on the Unix socket at path.
func NewClient(path string) *Client {
	var d net.Dialer
	return &Client{socket: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		},
		MaxIdleConns:    4,
		IdleConnTimeout: 10 * time.Second,
	}}}
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Put tells the agent of a pod and waits until it is as asked.
func (c *Client) Put(ctx context.Context, p Pod) (Status, error) {
	var s Status
	err := c.do(ctx, http.MethodPut, "/v1/pods/"+url.PathEscape(p.UID), p, &s)
	return s, err
}

// Delete tells the agent that a pod is gone. An unknown uid is no error.
func (c *Client) Delete(ctx context.Context, uid string) error {
	return c.do(ctx, http.MethodDelete, "/v1/pods/"+url.PathEscape(uid), nil, nil)
}

// List returns all pods that the agent knows, ordered by uid.
func (c *Client) List(ctx context.Context) ([]Entry, error) {
	var all []Entry
	err := c.do(ctx, http.MethodGet, "/v1/pods", nil, &all)
	return all, err
}

// Snapshot tells the agent that these are all pods there are; it forgets the others.
func (c *Client) Snapshot(ctx context.Context, uids []string) error {
	if uids == nil {
		uids = []string{}
	}
	return c.do(ctx, http.MethodPut, "/v1/snapshot", Snapshot{UIDs: uids}, nil)
}

// maxAnswer bounds what the client reads.
const maxAnswer = 16 << 20

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("agent at %s: %w", c.socket, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return fmt.Errorf("agent at %s: %w", c.socket, err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("agent at %s: %w", c.socket, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("agent at %s: %s %s: %w", c.socket, method, path, err)
	}
	if res.StatusCode/100 != 2 {
		var e struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(b, &e) != nil || e.Error == "" {
			e.Error = res.Status
		}
		return fmt.Errorf("agent at %s: %s %s: %s", c.socket, method, path, e.Error)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("agent at %s: %s %s: %w", c.socket, method, path, err)
	}
	return nil
}
