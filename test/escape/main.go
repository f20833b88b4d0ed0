// Escape tries to get a TCP connection, or bytes, out of a pod around its
// capture, by one flavour at a time. It runs as root inside the pod's network
// namespace, so it may do what a pod with every capability in its own namespace
// may do.
//
//	escape FLAVOUR ADDRESS COUNT MARKER
//
// It makes COUNT attempts to send MARKER to ADDRESS and prints what came of them
// as JSON: attempts, answered (the bytes were echoed), refused, timed out, other,
// and packets, how many it sent by hand. `escape list` names the flavours.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Outcome is what came of the attempts.
type Outcome struct {
	Attempts, Answered, Refused, TimedOut, Other, Packets int
	// Errors holds up to five of the other errors.
	Errors []string `json:",omitempty"`
}

// try makes one attempt and returns how many packets it sent by hand.
type try func(dst netip.AddrPort, marker string) (packets int, err error)

var flavours = map[string]try{
	"plain":           stream(nil, nil),
	"bound-source":    stream(bindSource, nil),
	"bound-device":    stream(bindDevice, nil),
	"bound-late":      stream(nil, bindDevice),
	"bound-late-both": stream(bindSource, bindDevice),
	"forged-mark":     stream(forgeMark, nil),
	"mapped":          mapped,
	"fastopen":        fastOpen,
	"fastopen-option": stream(fastOpenOption, nil),
	"mptcp":           multipath,
	"raw":             rawSYN(false),
	"raw-spoofed":     rawSYN(true),
	"packet":          packetSYN(false),
	"packet-spoofed":  packetSYN(true),
	"nested":          nested,
	// Those of IPv6 alone.
	"six-scope":      scoped,
	"six-flow-label": flowLabel,
	"six-options":    stream(destinationOptions, nil),
	"six-segments":   stream(segmentRouting, nil),
	"six-headers":    headedSYNs,
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "list" {
		fmt.Println(strings.Join(slices.Sorted(maps.Keys(flavours)), "\n"))
		return
	}
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: escape FLAVOUR ADDRESS COUNT MARKER | escape list")
		os.Exit(2)
	}
	attempt, known := flavours[os.Args[1]]
	dst, err := netip.ParseAddrPort(os.Args[2])
	count, err2 := strconv.Atoi(os.Args[3])
	if !known || err != nil || err2 != nil {
		fmt.Fprintf(os.Stderr, "escape: unknown flavour, address or count: %q\n", os.Args[1:])
		os.Exit(2)
	}
	var o Outcome
	for range count {
		packets, err := attempt(dst, os.Args[4])
		o.add(packets, err)
	}
	_ = json.NewEncoder(os.Stdout).Encode(o)
}

func (o *Outcome) add(packets int, err error) {
	o.Attempts++
	o.Packets += packets
	switch {
	case err == nil:
		o.Answered++
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPERM), errors.Is(err, errClosed):
		o.Refused++
	case errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINPROGRESS), errors.Is(err, errNoAnswer):
		o.TimedOut++
	default:
		o.Other++
		if len(o.Errors) < 5 {
			o.Errors = append(o.Errors, err.Error())
		}
	}
}

var (
	errClosed   = errors.New("closed without an answer")
	errNoAnswer = errors.New("no answer")
)
