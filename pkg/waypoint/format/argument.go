package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// argCommands are the commands with an argument, which may be optional.
var argCommands map[string]func(c command) (value, kind, error)

func init() {
	argCommands = map[string]func(c command) (value, kind, error){
		"REQ":              header(requestField),
		"REQUEST_HEADER":   header(requestField),
		"RESP":             header(responseField),
		"RESPONSE_HEADER":  header(responseField),
		"TRAILER":          header(trailerField),
		"RESPONSE_TRAILER": header(trailerField),
		"START_TIME":       startTime,
		"GRPC_STATUS":      grpcStatus,
		"ENVIRONMENT": func(c command) (value, kind, error) {
			if c.arg == "" {
				return nil, text, errors.New("the variable's name is missing, as in %ENVIRONMENT(NAME)%")
			}
			v, ok := os.LookupEnv(c.arg)
			if !ok {
				v = "-"
			}
			return constant(v), text, nil
		},
		"FILTER_STATE":      filterState,
		"DYNAMIC_METADATA":  metadataOf(dynamic),
		"CLUSTER_METADATA":  metadataOf(func(i *streaminfo.Info) streaminfo.Metadata { return i.ClusterMetadata }),
		"UPSTREAM_METADATA": metadataOf(func(i *streaminfo.Info) streaminfo.Metadata { return i.HostMetadata }),
		"METADATA":          typedMetadata,
		"QUERY_PARAM":       queryParam,
		"QUERY_PARAMS":      queryParams,
		"COMMON_DURATION":   commonDuration,
		"COALESCE":          coalesce,
		"PATH":              path,
	}
}

func requestField(i *streaminfo.Info, name string) (string, bool) {
	if i.Request == nil {
		return "", false
	}
	if name == "x-envoy-original-path" && i.OriginalPath != "" {
		return i.OriginalPath, true
	}
	if message.Combined(name) {
		return i.Request.Joined(name)
	}
	return i.Request.Value(name)
}

func responseField(i *streaminfo.Info, name string) (string, bool) {
	if i.Response == nil {
		return "", false
	}
	return i.Response.Value(name)
}

func trailerField(i *streaminfo.Info, name string) (string, bool) { return i.Trailers.Lookup(name) }

// header is %REQ(MAIN?ALTERNATIVE)% and its like.
func header(get func(*streaminfo.Info, string) (string, bool)) func(command) (value, kind, error) {
	return func(c command) (value, kind, error) {
		main, other, _ := strings.Cut(strings.ToLower(c.arg), "?")
		if main == "" {
			return nil, text, errors.New("the field's name is missing, as in %REQ(USER-AGENT)%")
		}
		if strings.Contains(other, "?") {
			return nil, text, errors.New("at most one alternative is allowed, as in %REQ(MAIN?ALTERNATIVE)%")
		}
		return func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
			v, ok := get(i, main)
			if !ok && other != "" {
				v, ok = get(i, other)
			}
			return append(dst, v...), ok
		}, text, nil
	}
}

func dynamic(i *streaminfo.Info) streaminfo.Metadata { return i.Dynamic }

func filterState(c command) (value, kind, error) {
	key, serialisation, _ := strings.Cut(c.arg, ":")
	if key == "" {
		return nil, text, errors.New("the key is missing, as in %FILTER_STATE(key:PLAIN)%")
	}
	serialisation, _, _ = strings.Cut(serialisation, ":")
	switch serialisation {
	case "PLAIN", "":
		return func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
			v, ok := connection(i).FilterState[key]
			if ok && serialisation == "" {
				return appendQuoted(dst, v), true
			}
			return append(dst, v...), ok
		}, text, nil
	case "TYPED", "FIELD":
		// Filter state holds strings alone: they have no fields.
		return func(dst []byte, _ *streaminfo.Info) ([]byte, bool) { return dst, false }, text, nil
	}
	return nil, text, fmt.Errorf("the serialisation %q is not PLAIN, TYPED or FIELD", serialisation)
}

// metadataOf is %DYNAMIC_METADATA(namespace:key:key)%.
func metadataOf(get func(*streaminfo.Info) streaminfo.Metadata) func(command) (value, kind, error) {
	return func(c command) (value, kind, error) {
		parts := strings.Split(c.arg, ":")
		if strings.HasPrefix(strings.TrimSpace(c.arg), "[") {
			// The form of old configurations: a JSON list of strings.
			parts = nil
			if err := json.Unmarshal([]byte(c.arg), &parts); err != nil {
				return nil, raw, fmt.Errorf("the list of keys is not JSON: %w", err)
			}
		}
		if len(parts) == 0 || parts[0] == "" {
			return nil, raw, errors.New("the namespace is missing, as in (namespace:key)")
		}
		return func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
			m := get(i)
			if len(parts) == 1 {
				if all, ok := m[parts[0]]; ok {
					return appendJSON(dst, all), true
				}
				return dst, false
			}
			v, ok := m.Get(parts[0], parts[1:]...)
			if !ok {
				return dst, false
			}
			return appendJSON(dst, v), true
		}, raw, nil
	}
}

// typedMetadata is %METADATA(TYPE:namespace:key)%.
func typedMetadata(c command) (value, kind, error) {
	kindOf, rest, _ := strings.Cut(c.arg, ":")
	name := map[string]string{
		"DYNAMIC": "DYNAMIC_METADATA", "CLUSTER": "CLUSTER_METADATA", "UPSTREAM_HOST": "UPSTREAM_METADATA",
	}[kindOf]
	switch {
	case name != "":
		c.arg = rest
		return argCommands[name](c)
	case kindOf == "ROUTE":
		c.arg = rest
		return metadataOf(func(i *streaminfo.Info) streaminfo.Metadata { return i.RouteMetadata })(c)
	case kindOf == "LISTENER" || // nothing here has such metadata
		kindOf == "VIRTUAL_HOST" || kindOf == "LISTENER_FILTER_CHAIN":
		return func(dst []byte, _ *streaminfo.Info) ([]byte, bool) { return dst, false }, raw, nil
	}
	return nil, raw, fmt.Errorf("there is no metadata of type %q", kindOf)
}

func queryParam(c command) (value, kind, error) {
	if c.arg == "" {
		return nil, text, errors.New("the parameter's name is missing, as in %QUERY_PARAM(name)%")
	}
	return func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
		if i.Request == nil {
			return dst, false
		}
		v, ok := message.QueryValue(i.Request.Path, c.arg)
		return append(dst, v...), ok
	}, text, nil
}

// queryParams is %QUERY_PARAMS(ORIG|PATH|ORIG_OR_PATH)%: the query.
func queryParams(c command) (value, kind, error) {
	if c.arg != "" && c.arg != "ORIG" && c.arg != "PATH" && c.arg != "ORIG_OR_PATH" {
		return nil, text, fmt.Errorf("the argument %q is not ORIG, PATH or ORIG_OR_PATH", c.arg)
	}
	return func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
		if i.Request == nil {
			return dst, false
		}
		_, query, ok := strings.Cut(pathOf(i, c.arg), "?")
		return append(dst, query...), ok
	}, text, nil
}

// pathOf is the path as it came or as it was rewritten.
func pathOf(i *streaminfo.Info, which string) string {
	if orig, ok := requestField(i, "x-envoy-original-path"); which == "ORIG" || ok && which != "PATH" {
		return orig
	}
	return i.Request.Path
}

// path is %PATH(WQ|NQ:ORIG|PATH|ORIG_OR_PATH)%.
func path(c command) (value, kind, error) {
	query, which, _ := strings.Cut(c.arg, ":")
	if query != "" && query != "WQ" && query != "NQ" || which != "" && which != "ORIG" && which != "PATH" && which != "ORIG_OR_PATH" {
		return nil, text, fmt.Errorf("the argument %q is not of the form WQ|NQ:ORIG|PATH|ORIG_OR_PATH", c.arg)
	}
	return func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
		if i.Request == nil {
			return dst, false
		}
		p := pathOf(i, which)
		if query == "NQ" {
			p, _, _ = strings.Cut(p, "?")
		}
		return append(dst, p...), p != ""
	}, text, nil
}
