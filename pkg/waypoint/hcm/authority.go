package hcm

import (
	"strconv"
	"strings"
)

// authority brings a request's authority into the order that the configuration asks
// for (strip_trailing_host_dot, strip_matching_host_port, strip_any_host_port). port is
// the one that the client connected to.
func (m *Manager) authority(host string, port uint16) string {
	at := portOf(host)
	if m.stripDot {
		if name, rest := host[:at], host[at:]; strings.HasSuffix(name, ".") {
			host = name[:len(name)-1] + rest
			at--
		}
	}
	if m.stripPort == keepPort || at == len(host) {
		return host
	}
	n, err := strconv.ParseUint(host[at+1:], 10, 32)
	if err != nil || m.stripPort == stripMatching && n != uint64(port) {
		return host
	}
	return host[:at]
}

// portOf is where the colon before a port stands, or the end.
func portOf(host string) int {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || strings.IndexByte(host[i:], ']') >= 0 {
		return len(host)
	}
	return i
}
