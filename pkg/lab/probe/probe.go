// Package probe asks pods whether they are ready, in the kubelet's place. A node's
// prober is a process of its own, because the node agent tells a probe by where it
// begins: in the node's network namespace and a cgroup that is no pod's.
//
// The lab talks to it over its standard input and output, one JSON object a line.
// It is part of the lab; only the lab and cmd/fairlead import it.
package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Name is the program's name in a sandbox.Program.
const Name = "prober"

// Request is one question.
type Request struct {
	ID uint64 `json:"id"`
	// URL to get, or Address to connect to.
	URL     string            `json:"url,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Address string            `json:"address,omitempty"`
	Timeout time.Duration     `json:"timeout"`
}

// Answer to one question; an empty Problem means ready.
type Answer struct {
	ID      uint64 `json:"id"`
	Problem string `json:"problem,omitempty"`
}

// Serve answers requests until in ends.
func Serve(in io.Reader, out io.Writer) error {
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			// As the kubelet: a probe asks for health, not for identity.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // G402: kubelet probes do not verify either
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var mu sync.Mutex // orders answers
	enc := json.NewEncoder(out)
	var asked sync.WaitGroup
	defer asked.Wait()
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var r Request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("prober: %w", err)
		}
		asked.Go(func() {
			a := Answer{ID: r.ID}
			if err := ask(client, r); err != nil {
				a.Problem = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			_ = enc.Encode(a) // the lab is gone when this fails, and then the input ends
		})
	}
	return nil
}

func ask(client *http.Client, r Request) error {
	ctx, cancel := context.WithTimeout(context.Background(), r.Timeout)
	defer cancel()
	if r.Address != "" {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", r.Address)
		if err != nil {
			return err
		}
		return c.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kube-probe/fairlead-lab")
	for k, v := range r.Headers {
		if http.CanonicalHeaderKey(k) == "Host" {
			req.Host = v
			continue
		}
		req.Header.Set(k, v)
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode >= 400 {
		return fmt.Errorf("%s answered %s", r.URL, res.Status)
	}
	return nil
}
