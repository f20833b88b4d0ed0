package push

import (
	"errors"
	"iter"
	"unicode/utf8"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// request is a DeltaDiscoveryRequest. What the client says that it holds is left as it
// came: one that comes back names everything, tens of thousands of resources, which are
// looked at once.
type request struct {
	*discovery.DeltaDiscoveryRequest
	held holding
}

// Fields of a request: type_url, initial_resource_versions, response_nonce.
const fieldType, fieldHeld, fieldNonce = 2, 5, 6

// known is a type's name as it stands in the program, or "" of one that nodes' agents are not sent.
func known(typeURL []byte) string {
	for _, t := range meshTypes {
		if t == string(typeURL) {
			return t
		}
	}
	return ""
}

// holding are the resources that a client holds: a message with the entries of a
// map<string, string>, names and versions. Nil is none.
type holding []byte

var errRequest = errors.New("this is no DeltaDiscoveryRequest")

// decode reads a message, which it keeps a part of.
func (r *request) decode(message []byte) error {
	var rest []byte // without what is held
	holds, plain := false, true
	var typeURL, nonce string
	for b := message; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errRequest
		}
		value := protowire.ConsumeFieldValue(number, kind, b[n:])
		if value < 0 {
			return errRequest
		}
		switch text, _ := protowire.ConsumeBytes(b[n:]); {
		case kind == protowire.BytesType && number == fieldType:
			typeURL = known(text)
		case kind == protowire.BytesType && number == fieldNonce:
			nonce = string(text)
		default:
			plain = false
		}
		if number == fieldHeld && kind == protowire.BytesType {
			holds = true
		} else if holds {
			rest = append(rest, b[:n+value]...)
		} else {
			rest = message[: len(message)-len(b)+n+value : len(message)-len(b)+n+value]
		}
		b = b[n+value:]
	}
	if plain && typeURL != "" && utf8.ValidString(nonce) { // an ACK: a change brings one of each client
		r.DeltaDiscoveryRequest = &discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: nonce}
		return nil
	}
	r.DeltaDiscoveryRequest = &discovery.DeltaDiscoveryRequest{}
	if holds {
		r.held = message
	}
	return proto.Unmarshal(rest, r.DeltaDiscoveryRequest)
}

// all are the names and versions. They are parts of the message.
func (h holding) all() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, version []byte) bool) {
		for b := []byte(h); len(b) > 0; {
			number, kind, n := protowire.ConsumeTag(b)
			value := protowire.ConsumeFieldValue(number, kind, b[n:]) // it was well-formed when it came
			if number == fieldHeld && kind == protowire.BytesType {
				entry, _ := protowire.ConsumeBytes(b[n:])
				if name, version := entryOf(entry); !yield(name, version) {
					return
				}
			}
			b = b[n+value:]
		}
	}
}

// entryOf are the key and the value of a map's entry; both are nil of one that is none.
func entryOf(b []byte) (key, value []byte) {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, nil
		}
		length := protowire.ConsumeFieldValue(number, kind, b[n:])
		if length < 0 {
			return nil, nil
		}
		if text, _ := protowire.ConsumeBytes(b[n:]); kind == protowire.BytesType {
			switch number {
			case 1:
				key = text
			case 2:
				value = text
			}
		}
		b = b[n+length:]
	}
	return key, value
}

// versions are those of some names.
func (h holding) versions(of map[string]bool) map[string]string {
	out := map[string]string{}
	for name, version := range h.all() {
		if of[string(name)] {
			out[string(name)] = string(version)
		}
	}
	return out
}
