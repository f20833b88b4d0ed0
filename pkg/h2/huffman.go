package h2

import (
	"strings"

	"golang.org/x/net/http2/hpack"
)

// The decoder of RFC 7541's Huffman code is a machine that takes four bits at a
// time; the shortest code has five, so a step yields one symbol at most.
type huffmanStep struct {
	next   uint16
	symbol byte
	flags  byte
}

const (
	huffmanYields = 1 << iota
	huffmanFails  // bits that are no symbol's, or the end's
)

// huffmanMachine is indexed by state and four bits; huffmanEnds are the states
// that a string may end in: nothing left, or less than 8 bits of padding, all ones.
var huffmanMachine, huffmanEnds = makeHuffman()

func makeHuffman() ([][16]huffmanStep, []bool) {
	type node struct {
		child  [2]int // of nodes; 0 for none
		symbol int    // -1: inner
	}
	nodes := []node{{symbol: -1}}
	for symbol := range 256 {
		// The table of codes is that of x/net's encoder. Eight of a symbol take as many
		// bytes as one has bits.
		one := string([]byte{byte(symbol)})
		bits := int(hpack.HuffmanEncodeLength(strings.Repeat(one, 8)))
		code := hpack.AppendHuffmanString(nil, one)
		at := 0
		for i := range bits {
			bit := code[i/8] >> (7 - i%8) & 1
			if nodes[at].child[bit] == 0 {
				nodes = append(nodes, node{symbol: -1})
				nodes[at].child[bit] = len(nodes) - 1
			}
			at = nodes[at].child[bit]
		}
		nodes[at].symbol = symbol
	}
	machine := make([][16]huffmanStep, len(nodes))
	for state := range nodes {
		for nibble := range 16 {
			step, at := huffmanStep{}, state
			for i := 3; i >= 0; i-- {
				at = nodes[at].child[nibble>>i&1]
				if at == 0 {
					step.flags |= huffmanFails
					break
				}
				if nodes[at].symbol >= 0 {
					step.flags |= huffmanYields
					step.symbol = byte(nodes[at].symbol)
					at = 0
				}
			}
			step.next = uint16(at)
			machine[state][nibble] = step
		}
	}
	ends := make([]bool, len(nodes))
	for at, depth := 0, 0; depth < 8; depth++ {
		ends[at] = true
		at = nodes[at].child[1]
	}
	return machine, ends
}

// appendHuffman decodes src behind dst; ok is false for what is no string.
func appendHuffman(dst, src []byte) (_ []byte, ok bool) {
	state := uint16(0)
	for _, b := range src {
		step := huffmanMachine[state][b>>4]
		if step.flags&huffmanYields != 0 {
			dst = append(dst, step.symbol)
		}
		bad := step.flags
		step = huffmanMachine[step.next][b&15]
		if step.flags&huffmanYields != 0 {
			dst = append(dst, step.symbol)
		}
		if (bad|step.flags)&huffmanFails != 0 {
			return dst, false
		}
		state = step.next
	}
	return dst, huffmanEnds[state]
}
