package hcm

import (
	"strings"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// outcome of bringing a path into order.
type outcome uint8

const (
	pathKept outcome = iota
	pathChanged
	pathRefused  // 400
	pathRedirect // 307 to the path in order
)

// order brings a request's path into one form, so that policies and routes see what
// the application will: dot segments are taken away (RFC 3986 section 6.2.2.3),
// unreserved characters are not escaped, and slashes are merged if so configured.
func (m *Manager) order(path string) (string, outcome) {
	if m.slashes != hcmv3.HttpConnectionManager_KEEP_UNCHANGED && m.slashes != hcmv3.HttpConnectionManager_IMPLEMENTATION_SPECIFIC_DEFAULT {
		target, _, _ := strings.Cut(path, "?")
		if hasEscapedSlash(target) {
			switch m.slashes {
			case hcmv3.HttpConnectionManager_REJECT_REQUEST:
				return path, pathRefused
			case hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT:
				ordered, how := m.orderPlain(unescapeSlashes(path))
				if how == pathRefused {
					return path, how
				}
				return ordered, pathRedirect
			case hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD:
				ordered, how := m.orderPlain(unescapeSlashes(path))
				if how == pathKept {
					how = pathChanged
				}
				return ordered, how
			}
		}
	}
	return m.orderPlain(path)
}

func (m *Manager) orderPlain(path string) (string, outcome) {
	if !needsOrder(path, m.normalizePath, m.mergeSlashes) {
		return path, pathKept
	}
	if path == "" || path[0] != '/' {
		if path == "*" || path == "" {
			return path, pathKept
		}
		return path, pathRefused
	}
	target, rest := path, ""
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		target, rest = path[:i], path[i:]
	}
	if m.normalizePath {
		var ok bool
		if target, ok = canonical(target); !ok {
			return path, pathRefused
		}
	}
	if m.mergeSlashes {
		target = mergeSlashes(target)
	}
	// A fragment is not the server's business (RFC 9110 section 7.1).
	if i := strings.IndexByte(rest, '#'); i >= 0 && m.normalizePath {
		rest = rest[:i]
	}
	if out := target + rest; out != path {
		return out, pathChanged
	}
	return path, pathKept
}

// needsOrder tells the common path, which is in order, from others without work.
func needsOrder(path string, normalize, merge bool) bool {
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '?':
			return false
		case c == '/':
			if i+1 < len(path) && (merge && path[i+1] == '/' || normalize && path[i+1] == '.') {
				return true
			}
		case normalize && (c == '%' || c == '\\' || c == '#' || c <= ' ' || c >= 0x7f || c == '"' || c == '<' || c == '>' || c == '`' || c == '{' || c == '}' || c == '^' || c == '|'):
			return true
		}
	}
	return path == "" || path[0] != '/'
}

// canonical decodes escapes of unreserved characters, reads a backslash as a slash,
// and takes dot segments away, all as Envoy does. A path that leads above its root ends
// at the root; one with an escaped NUL is refused. Other escapes stay as they are, also
// those that are none.
func canonical(target string) (string, bool) {
	out := make([]byte, 0, len(target)+8)
	for i := 0; i < len(target); i++ {
		c := target[i]
		switch {
		case c == '\\':
			out = append(out, '/')
		case c == '%':
			if i+2 >= len(target) || !isHex(target[i+1]) || !isHex(target[i+2]) {
				out = append(out, c)
				continue
			}
			v := unhex(target[i+1])<<4 | unhex(target[i+2])
			switch {
			case v == 0:
				return "", false
			case isUnreserved(v):
				out = append(out, v)
			default:
				out = append(out, target[i:i+3]...)
			}
			i += 2
		case c <= ' ' || c >= 0x7f || c == '"' || c == '<' || c == '>' || c == '`' || c == '{' || c == '}' || c == '^' || c == '|' || c == '#':
			out = append(out, '%', upperHex(c>>4), upperHex(c&15))
		default:
			out = append(out, c)
		}
	}
	return string(removeDots(out)), true
}

// removeDots is RFC 3986 section 5.2.4 for a path that begins with a slash.
func removeDots(path []byte) []byte {
	out := path[:0]
	for i := 0; i < len(path); {
		end := i + 1
		for end < len(path) && path[end] != '/' {
			end++
		}
		segment := string(path[i+1 : end])
		last := end == len(path)
		switch segment {
		case ".":
			if last {
				out = append(out, '/')
			}
		case "..":
			for len(out) > 0 {
				c := out[len(out)-1]
				out = out[:len(out)-1]
				if c == '/' {
					break
				}
			}
			if last {
				out = append(out, '/')
			}
		default:
			out = append(out, '/')
			out = append(out, segment...)
		}
		i = end
	}
	if len(out) == 0 {
		out = append(out, '/')
	}
	return out
}

func mergeSlashes(target string) string {
	if !strings.Contains(target, "//") {
		return target
	}
	out := make([]byte, 0, len(target))
	for i := range len(target) {
		if target[i] == '/' && i > 0 && target[i-1] == '/' {
			continue
		}
		out = append(out, target[i])
	}
	return string(out)
}

func hasEscapedSlash(target string) bool {
	for i := 0; i+2 < len(target); i++ {
		if target[i] == '%' && (target[i+1] == '2' && target[i+2]|0x20 == 'f' || target[i+1] == '5' && target[i+2]|0x20 == 'c') {
			return true
		}
	}
	return false
}

// unescapeSlashes reads %2F as a slash and %5C as a backslash, in the path alone.
func unescapeSlashes(path string) string {
	target, query, hasQuery := strings.Cut(path, "?")
	target = strings.NewReplacer("%2F", "/", "%2f", "/", "%5C", "\\", "%5c", "\\").Replace(target)
	if hasQuery {
		return target + "?" + query
	}
	return target
}

func isUnreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

func upperHex(v byte) byte { return "0123456789ABCDEF"[v] }
