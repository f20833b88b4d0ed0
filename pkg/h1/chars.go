package h1

import (
	"encoding/binary"
	"unsafe"
)

// lower is, for the characters of a token (RFC 9110 section 5.6.2), that in lower
// case; 0 for all others.
var lower = func() (t [256]byte) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") {
		t[c] = c
	}
	for c := byte('A'); c <= 'Z'; c++ {
		t[c] = c + 'a' - 'A'
	}
	return t
}()

// hostChar has the characters of a host's name or IPv4 address (RFC 3986 section
// 3.2.2).
var hostChar = func() (t [256]bool) {
	for _, c := range []byte("-._~%!$&'()*+,;=0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()

// alias is b as a string that is valid as long as b is left alone.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Eight bytes are looked at together.
const (
	ones = 0x0101010101010101
	high = 0x8080808080808080
)

// validValue reports whether b is a field's value: no control character but HTAB
// (RFC 9110 section 5.5); obs-text passes, as with Envoy.
func validValue(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		x := binary.LittleEndian.Uint64(b)
		below := (x - ones*0x20) &^ x & high // a byte below 0x20, or one above it that borrowed
		del := x ^ ones*0x7f
		if below|((del-ones)&^del&high) != 0 && !validBytes(b[:8]) {
			return false
		}
	}
	return validBytes(b)
}

func validBytes(b []byte) bool {
	for _, c := range b {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// validTarget reports whether b may stand in a request line: visible ASCII without
// a fragment.
func validTarget(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		x := binary.LittleEndian.Uint64(b)
		below := (x - ones*0x21) &^ x & high
		del, hash := x^ones*0x7f, x^ones*'#'
		if below|((del-ones)&^del&high)|((hash-ones)&^hash&high)|x&high != 0 {
			// A borrow may have accused a neighbour.
			for _, c := range b[:8] {
				if !targetChar(c) {
					return false
				}
			}
		}
	}
	for _, c := range b {
		if !targetChar(c) {
			return false
		}
	}
	return true
}

func targetChar(c byte) bool { return c > ' ' && c < 0x7f && c != '#' }

// validAuthority reports whether b is a host with an optional port (RFC 9110
// section 7.2); userinfo is not allowed. The host may be empty.
func validAuthority(b []byte) bool {
	host := 0
	if len(b) > 0 && b[0] == '[' {
		for host = 1; host < len(b) && b[host] != ']'; host++ {
			if c := b[host]; !hostChar[c] && c != ':' {
				return false
			}
		}
		if host < 3 || host == len(b) {
			return false
		}
		host++
	} else {
		for host < len(b) && hostChar[b[host]] {
			host++
		}
	}
	return host == len(b) || b[host] == ':' && validPort(b[host+1:])
}

func validPort(b []byte) bool {
	if len(b) > 5 {
		return false
	}
	port := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
		port = port*10 + int(c-'0')
	}
	return port < 1<<16
}

// trim takes spaces and tabs from both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// isToken reports whether b, in any case, is the token in lower case.
func isToken(b []byte, token string) bool {
	if len(b) != len(token) {
		return false
	}
	for i, c := range b {
		if lower[c] != token[i] {
			return false
		}
	}
	return true
}

// nextToken is the first member of a comma-separated list, and the rest.
func nextToken(list []byte) (token, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return trim(list[:i]), list[i+1:]
		}
	}
	return trim(list), nil
}

// ValidTarget reports whether s may stand in a request line.
func ValidTarget(s string) bool {
	return s != "" && (s[0] == '/' || s == "*") && validTarget(bytesOf(s))
}

// ValidAuthority reports whether s is a host with an optional port; both may be
// empty.
func ValidAuthority(s string) bool { return validAuthority(bytesOf(s)) }
