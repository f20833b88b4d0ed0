package h1

import (
	"net/http"
	"unsafe"
)

// StatusText is the reason of a status, as Envoy writes it.
func StatusText(status int) string {
	if text := http.StatusText(status); text != "" {
		return text
	}
	return "Unknown"
}

func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
