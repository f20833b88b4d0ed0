package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Error is what the API answered in place of what was asked for.
type Error struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Details is which object it is about, where the API says so.
	Details struct {
		Name string `json:"name"`
		Kind string `json:"kind"` // the resource, as daemonsets
	} `json:"details"`
}

// Error implements error.
func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the Kubernetes API answers %d %s", e.Code, http.StatusText(e.Code))
	}
	return "the Kubernetes API answers: " + e.Message
}

// IsNotFound reports that there is no such object.
func IsNotFound(err error) bool { return hasCode(err, http.StatusNotFound) }

// IsNoSuch reports that the API knows the kind of object and has none of that name.
// A 404 alone may be of whoever stands in the API's place.
func IsNoSuch(err error, resource, name string) bool {
	e := (*Error)(nil)
	return errors.As(err, &e) && e.Code == http.StatusNotFound && e.Reason == "NotFound" && e.Details.Kind == resource && e.Details.Name == name
}

// IsConflict reports that the object is another by now.
func IsConflict(err error) bool { return hasCode(err, http.StatusConflict) }

// IsForbidden reports that the caller may not do this.
func IsForbidden(err error) bool { return hasCode(err, http.StatusForbidden) }

// IsUnauthorized reports that the caller is not known, or not any more.
func IsUnauthorized(err error) bool { return hasCode(err, http.StatusUnauthorized) }

// isExpired reports that a watch begins too far back.
func isExpired(err error) bool { return hasCode(err, http.StatusGone) }

func hasCode(err error, code int) bool {
	e := (*Error)(nil)
	return errors.As(err, &e) && e.Code == code
}

// maxObject bounds the answers of the API that are held at once: etcd's objects
// have at most 1.5 MiB, a page of them is smaller in practice.
const maxObject = 32 << 20

// Get reads the object at path, such as /api/v1/namespaces/x, into into.
func (c *Client) Get(ctx context.Context, path string, into any) error {
	return c.call(ctx, http.MethodGet, path, "", nil, into)
}

// Create makes body an object of the collection at path.
// What was made of it is read into into, unless that is nil.
func (c *Client) Create(ctx context.Context, path string, body, into any) error {
	return c.call(ctx, http.MethodPost, path, "application/json", body, into)
}

// Patch merges body into the object at path (RFC 7396).
func (c *Client) Patch(ctx context.Context, path string, body any) error {
	return c.call(ctx, http.MethodPatch, path, "application/merge-patch+json", body, nil)
}

// Delete deletes the object at path; what it has made goes after it.
func (c *Client) Delete(ctx context.Context, path string) error {
	return c.call(ctx, http.MethodDelete, path, "application/json", map[string]string{"propagationPolicy": "Background"}, nil)
}

func (c *Client) call(ctx context.Context, method, path, kind string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	res, err := c.do(ctx, method, path, kind, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil {
		_, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxObject))
		return err
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxObject)).Decode(out); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// do returns an answer of success; the caller closes its body.
func (c *Client) do(ctx context.Context, method, path, kind string, body io.Reader) (*http.Response, error) {
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.config.Server+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "fairlead")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the Kubernetes API: %w", err)
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	e := &Error{}
	if json.Unmarshal(b, e) != nil || e.Code == 0 {
		e.Code, e.Message = res.StatusCode, ""
	}
	return nil, e
}
