package pages

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// configDump is Envoy's: all sections, or with ?resource= the entries of one list of
// one section, such as dynamic_listeners. ?mask= keeps fields, by paths with dots and
// commas between; ?name_regex= keeps entries; ?include_eds adds endpoints.
func (p *Pages) configDump(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	resource := query.Get("resource")
	names, err := pattern(query.Get("name_regex"))
	if err != nil {
		http.Error(w, "name_regex: "+err.Error(), http.StatusBadRequest)
		return
	}
	sections, err := p.sections(query.Has("include_eds") || strings.HasSuffix(resource, "_endpoint_configs"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if names != nil {
		for _, s := range sections {
			keep(s, names)
		}
	}
	entries := sections
	if resource != "" {
		if entries = only(sections, resource); len(entries) == 0 {
			http.Error(w, resource+" not found in config dump", http.StatusNotFound)
			return
		}
	}
	if mask := query.Get("mask"); mask != "" {
		entries = masked(entries, strings.Split(mask, ","))
	}
	text, err := json.MarshalIndent(map[string]any{"configs": entries}, "", " ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, text)
}

func pattern(expression string) (*regexp.Regexp, error) {
	if expression == "" {
		return nil, nil
	}
	return regexp.Compile(expression)
}

// sections are those of the dump, as JSON's values.
func (p *Pages) sections(endpoints bool) ([]any, error) {
	messages := append([]proto.Message{&adminv3.BootstrapConfigDump{Bootstrap: p.o.Bootstrap, LastUpdated: timestamppb.New(p.started)}}, p.o.Engine.Dumps(endpoints)...)
	secrets, err := p.secretsDump()
	if err != nil {
		return nil, err
	}
	dump := &adminv3.ConfigDump{}
	for _, m := range append(messages, secrets) {
		a, err := anypb.New(m)
		if err != nil {
			return nil, err
		}
		dump.Configs = append(dump.Configs, a)
	}
	text, err := marshal.Marshal(dump)
	if err != nil {
		return nil, fmt.Errorf("a resource of the dump: %w", err)
	}
	var all struct{ Configs []any }
	err = json.Unmarshal(text, &all)
	redact(all.Configs)
	return all.Configs, err
}

// secret are the fields that Envoy does not show either.
var secret = []string{"private_key", "password", "session_ticket_keys"}

// redact takes secrets out of a value in place.
func redact(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			redact(e)
		}
	case map[string]any:
		for key, e := range v {
			if source, ok := e.(map[string]any); ok && slices.Contains(secret, key) {
				for form := range source {
					source[form] = redacted
					if form == "inline_bytes" {
						source[form] = base64.StdEncoding.EncodeToString([]byte(redacted))
					}
				}
				continue
			}
			redact(e)
		}
	}
}

// only are the entries of the list of that name.
func only(sections []any, list string) (out []any) {
	for _, s := range sections {
		fields, _ := s.(map[string]any)
		entries, _ := fields[list].([]any)
		out = append(out, entries...)
	}
	return out
}

// keep takes those entries out of a section's lists whose names do not match.
func keep(section any, names *regexp.Regexp) {
	fields, _ := section.(map[string]any)
	for list, v := range fields {
		entries, ok := v.([]any)
		if !ok {
			continue
		}
		kept := []any{}
		for _, e := range entries {
			if name, ok := nameOf(e); !ok || names.MatchString(name) {
				kept = append(kept, e)
			}
		}
		fields[list] = kept
	}
}

// nameOf is an entry's own name, or that of the resource in it.
func nameOf(entry any) (string, bool) {
	fields, _ := entry.(map[string]any)
	for _, key := range []string{"name", "cluster_name"} {
		if name, ok := fields[key].(string); ok {
			return name, true
		}
	}
	for _, key := range []string{"cluster", "listener", "route_config", "endpoint_config", "secret"} {
		if inner, ok := fields[key]; ok {
			return nameOf(inner)
		}
	}
	return "", false
}

// masked are the entries with nothing but the fields at the paths; those that have none
// of them are left out.
func masked(entries []any, paths []string) []any {
	out := []any{}
	for _, e := range entries {
		var kept any
		for _, path := range paths {
			kept = merge(kept, at(e, strings.Split(path, ".")))
		}
		if kept != nil {
			out = append(out, kept)
		}
	}
	return out
}

// at is v with nothing but what is at a path, or nil. Lists are gone into, and a
// message keeps its type.
func at(v any, path []string) any {
	if len(path) == 0 {
		return v
	}
	switch v := v.(type) {
	case []any:
		var out []any
		for _, e := range v {
			if kept := at(e, path); kept != nil {
				out = append(out, kept)
			}
		}
		if out != nil {
			return out
		}
	case map[string]any:
		kept := at(v[path[0]], path[1:])
		if kept == nil {
			return nil
		}
		out := map[string]any{path[0]: kept}
		if t, ok := v["@type"]; ok {
			out["@type"] = t
		}
		return out
	}
	return nil
}

// merge puts two parts of one value together.
func merge(a, b any) any {
	switch x := a.(type) {
	case nil:
		return b
	case map[string]any:
		y, _ := b.(map[string]any)
		for k, v := range y {
			x[k] = merge(x[k], v)
		}
		return x
	case []any:
		y, _ := b.([]any)
		for i := range min(len(x), len(y)) {
			x[i] = merge(x[i], y[i])
		}
		return x
	}
	return a
}
