package codec

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// What is known of a beginning is not known otherwise with more of it: nobody gets
// another verdict by the pieces in which he sends.
func TestPiecesDecideNothing(t *testing.T) {
	words := []string{"GET", "get", "PRI", " ", "\t", "\x0b", "\xa0", "/", "/a", "*", "a", ":/", "http/1.1", "HTTP/2.0", "RTSP/1.0", "\r", "\n", "\r\n", "\r\n\r\nSM\r\n\r\n", "\x00", "\x01", "\x7f", "{", "é"}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	seen := map[Protocol]int{}
	for range 100_000 {
		var b strings.Builder
		for range 1 + r.IntN(8) {
			b.WriteString(words[r.IntN(len(words))])
		}
		whole := []byte(b.String())
		want, known := protocolOf(whole)
		for n := range whole {
			if got, before := protocolOf(whole[:n]); before && (!known || got != want) {
				t.Fatalf("seed %d: %q is %d, %q is %d (known: %v)", seed, whole[:n], got, whole, want, known)
			}
		}
		if known {
			seen[want]++
		}
	}
	if seen[TCP] < 1000 || seen[HTTP1] < 100 {
		t.Errorf("too few of one kind: %v", seen)
	}
}
