package plane

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
)

// asked is one question to an API server, in the words of its rights.
type asked struct {
	verb, group, resource, name, path string
}

func (a asked) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", a.verb, strings.Trim(a.resource+"."+a.group, "."), a.name))
}

// question reads what a request asks for; its resource is empty for pages that are none.
func question(r *http.Request) asked {
	q := asked{path: r.URL.Path, verb: map[string]string{"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[r.Method]}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(parts) > 2 && parts[0] == "api":
		parts = parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		q.group, parts = parts[1], parts[3:]
	default:
		return asked{verb: q.verb, path: q.path}
	}
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	q.resource = parts[0]
	if len(parts) > 1 {
		q.name = parts[1]
	}
	if len(parts) > 2 {
		q.resource += "/" + parts[2]
	}
	query := r.URL.Query()
	if one, ok := strings.CutPrefix(query.Get("fieldSelector"), "metadata.name="); ok && q.name == "" {
		q.name = one
		if q.verb == "get" {
			q.verb = "list"
		}
	} else if q.name == "" && q.verb == "get" {
		q.verb = "list"
	}
	if w := query.Get("watch"); q.verb == "list" && (w == "1" || w == "true") {
		q.verb = "watch"
	}
	return q
}

// questions are those that tests of this process have asked.
type questions struct {
	mu  sync.Mutex
	all map[asked]bool
}

var used = &questions{all: map[asked]bool{}}

func (q *questions) add(a asked) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all[a] = true
}

// unused are the rights among rules that no question needed, each as "verb resource".
func (q *questions) unused(rules []rbacv1.PolicyRule) []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []string
	for _, r := range rules {
		names := r.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				for _, verb := range r.Verbs {
					for _, name := range names {
						if !q.needed(group, resource, verb, name) {
							out = append(out, asked{verb: verb, group: group, resource: resource, name: name}.String())
						}
					}
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (q *questions) needed(group, resource, verb, name string) bool {
	for a := range q.all {
		// Server-side apply of what is not there yet needs the right to create it; and an API
		// server that cannot begin a watch with what is there is asked for a list.
		verbs := a.verb == verb || verb == "create" && a.verb == "patch" && !strings.Contains(resource, "/") || verb == "list" && a.verb == "watch"
		if a.group == group && a.resource == resource && verbs && (name == "" || a.name == name) {
			return true
		}
	}
	return false
}
