package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Follower is told what objects there are; its functions are called one at a time.
type Follower[T Object] struct {
	// Replace is called with all that there are: at first, and after a gap.
	Replace func(all []T)
	Put     func(T)
	Delete  func(T)
}

// How a collection is followed.
const (
	page       = 50 // objects that are decoded at once
	watchTime  = 5 * time.Minute
	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Follow lists and watches the collection at path until ctx ends. selector is a
// field selector, or empty. It goes on over every failure, each of which is logged
// as it begins.
func Follow[T Object](ctx context.Context, c *Client, path, selector string, f Follower[T], log *slog.Logger) {
	version, delay, failing := "", firstRetry, false
	for ctx.Err() == nil {
		err := error(nil)
		if version == "" {
			version, err = list(ctx, c, path, selector, f.Replace)
		}
		if err == nil {
			if failing {
				log.Info("the Kubernetes API answers again", "path", path)
			}
			begun := time.Now()
			version, err = watch(ctx, c, path, selector, version, f)
			if time.Since(begun) > lastRetry {
				delay = firstRetry
			}
			failing = false
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			continue // the server ended the watch in order
		case isExpired(err):
			version = ""
			log.Debug("the watch is begun anew", "path", path, "err", err)
		case !failing:
			failing = true
			log.Warn("objects of the Kubernetes API are not followed; trying again", "path", path, "err", err)
		}
		timer := time.NewTimer(delay/2 + rand.N(delay)) //nolint:gosec // spreads retries, guards nothing
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		delay = min(2*delay, lastRetry)
	}
}

func list[T Object](ctx context.Context, c *Client, path, selector string, replace func([]T)) (version string, err error) {
	var all []T
	query := url.Values{"limit": {strconv.Itoa(page)}}
	if selector != "" {
		query.Set("fieldSelector", selector)
	}
	for {
		var answer struct {
			Metadata struct {
				ResourceVersion string `json:"resourceVersion"`
				Continue        string `json:"continue"`
			} `json:"metadata"`
			Items []T `json:"items"`
		}
		if err := c.Get(ctx, path+"?"+query.Encode(), &answer); err != nil {
			return "", err
		}
		all = append(all, answer.Items...)
		if answer.Metadata.Continue == "" {
			replace(all)
			return answer.Metadata.ResourceVersion, nil
		}
		query.Set("continue", answer.Metadata.Continue)
	}
}

// watch returns the version to go on from.
func watch[T Object](ctx context.Context, c *Client, path, selector, version string, f Follower[T]) (string, error) {
	query := url.Values{
		"watch": {"1"}, "allowWatchBookmarks": {"true"}, "resourceVersion": {version},
		"timeoutSeconds": {strconv.Itoa(int((watchTime + rand.N(watchTime)).Seconds()))}, //nolint:gosec // spreads reconnects
	}
	if selector != "" {
		query.Set("fieldSelector", selector)
	}
	res, err := c.do(ctx, http.MethodGet, path+"?"+query.Encode(), "", nil)
	if err != nil {
		return version, err
	}
	defer res.Body.Close()
	for dec := json.NewDecoder(res.Body); ; {
		var event struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := dec.Decode(&event); err != nil {
			if errors.Is(err, io.EOF) {
				return version, nil
			}
			return version, fmt.Errorf("watch %s: %w", path, err)
		}
		if event.Type == "ERROR" {
			e := &Error{}
			if err := json.Unmarshal(event.Object, e); err != nil {
				return version, fmt.Errorf("watch %s: %w", path, err)
			}
			return version, e
		}
		var object T
		if err := json.Unmarshal(event.Object, &object); err != nil {
			return version, fmt.Errorf("watch %s: %w", path, err)
		}
		version = object.meta().ResourceVersion
		switch event.Type {
		case "ADDED", "MODIFIED":
			f.Put(object)
		case "DELETED":
			f.Delete(object)
		}
	}
}
