package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/internal_upstream/v3"
	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// sidecarSocket is istiod's entry for endpoints with a sidecar, whose mutual TLS is
// not the mesh's; the next entry that matches is taken.
const sidecarSocket = "tlsMode-istio"

// sockets are a cluster's transport sockets.
type sockets struct {
	first   *socket
	matches []socketMatch
}

type socketMatch struct {
	fields map[string]*structpb.Value
	socket *socket
}

// socket is what goes over a connection before HTTP: nothing, TLS, or a PROXY header.
type socket struct {
	secure *secure      // or nil
	proxy  *proxyHeader // or nil
	key    string
}

func (s *socket) equal(o *socket) bool { return s.key == o.key }

func (s *sockets) compile(c *clusterv3.Cluster, names *corev3.UpstreamHttpProtocolOptions) (field string, err error) {
	if c.GetTransportSocketMatcher() != nil {
		return "transport_socket_matcher", errors.New("not supported; transport_socket_matches is")
	}
	if s.first, err = socketOf(c.GetTransportSocket(), names); err != nil {
		return "transport_socket", err
	}
	for i, m := range c.GetTransportSocketMatches() {
		if m.GetName() == sidecarSocket {
			continue
		}
		to, err := socketOf(m.GetTransportSocket(), names)
		if err != nil {
			return fmt.Sprintf("transport_socket_matches[%d].transport_socket", i), err
		}
		s.matches = append(s.matches, socketMatch{m.GetMatch().GetFields(), to})
	}
	return "", nil
}

// of is the socket for a host, by its metadata.
func (s *sockets) of(h *Host) *socket {
	has := h.facts.Load().metadata[matchKey]
	for _, m := range s.matches {
		all := true
		for name, want := range m.fields {
			all = all && reflect.DeepEqual(has[name], want.AsInterface())
		}
		if all {
			return m.socket
		}
	}
	return s.first
}

func socketOf(t *corev3.TransportSocket, names *corev3.UpstreamHttpProtocolOptions) (*socket, error) {
	key, err := proto.MarshalOptions{Deterministic: true}.Marshal(t)
	if err != nil {
		return nil, err
	}
	s := &socket{key: string(key)}
	for t != nil {
		if t.GetTypedConfig() == nil {
			if strings.HasSuffix(t.GetName(), "raw_buffer") {
				return s, nil
			}
			return nil, fmt.Errorf("%q has no typed_config", t.GetName())
		}
		message, err := t.GetTypedConfig().UnmarshalNew()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.GetName(), err)
		}
		switch m := message.(type) {
		case *rawv3.RawBuffer:
			t = nil
		case *internalv3.InternalUpstreamTransport:
			t = m.GetTransportSocket()
		case *proxyv3.ProxyProtocolUpstreamTransport:
			if s.proxy, err = proxyOf(m.GetConfig()); err != nil {
				return nil, fmt.Errorf("%s: %w", t.GetName(), err)
			}
			t = m.GetTransportSocket()
		case *tlsv3.UpstreamTlsContext:
			if s.secure, err = secureOf(m, names); err != nil {
				return nil, fmt.Errorf("%s: %w", t.GetName(), err)
			}
			t = nil
		default:
			return nil, fmt.Errorf("%s: %s is not supported", t.GetName(), message.ProtoReflect().Descriptor().FullName())
		}
	}
	return s, nil
}

// proxyHeader is the PROXY protocol's first line (haproxy.org, proxy-protocol.txt).
type proxyHeader struct {
	binary bool // version 2
	added  []*corev3.TlvEntry
}

func proxyOf(c *corev3.ProxyProtocolConfig) (*proxyHeader, error) {
	p := &proxyHeader{binary: c.GetVersion() == corev3.ProxyProtocolConfig_V2, added: c.GetAddedTlvs()}
	for _, tlv := range p.added {
		if tlv.GetFormatString() != nil {
			return nil, errors.New("added_tlvs with format_string is not supported")
		}
		if tlv.GetType() > 255 || len(tlv.GetValue()) > 4096 {
			return nil, fmt.Errorf("added_tlvs: type %d with %d bytes", tlv.GetType(), len(tlv.GetValue()))
		}
	}
	return p, nil
}

// signature begins version 2.
const signature = "\r\n\r\n\x00\r\nQUIT\n"

func (p *proxyHeader) write(w io.Writer, source, destination netip.AddrPort) error {
	known := source.IsValid() && destination.IsValid()
	if !p.binary {
		line := "PROXY UNKNOWN\r\n"
		if known {
			family := "TCP4"
			src, dst := source.Addr().Unmap(), destination.Addr().Unmap()
			if !src.Is4() || !dst.Is4() {
				family = "TCP6"
				src, dst = netip.AddrFrom16(src.As16()), netip.AddrFrom16(dst.As16())
			}
			line = fmt.Sprintf("PROXY %s %s %s %d %d\r\n", family, src, dst, source.Port(), destination.Port())
		}
		_, err := io.WriteString(w, line)
		return err
	}
	var body bytes.Buffer
	command, family := byte(0x20), byte(0) // LOCAL
	if known {
		command, family = 0x21, 0x21
		src, dst := source.Addr().Unmap(), destination.Addr().Unmap()
		if src.Is4() && dst.Is4() {
			family = 0x11
			body.Write(src.AsSlice())
			body.Write(dst.AsSlice())
		} else {
			a, b := src.As16(), dst.As16()
			body.Write(a[:])
			body.Write(b[:])
		}
		body.Write(binary.BigEndian.AppendUint16(nil, source.Port()))
		body.Write(binary.BigEndian.AppendUint16(nil, destination.Port()))
	}
	for _, tlv := range p.added {
		body.WriteByte(byte(tlv.GetType()))
		body.Write(binary.BigEndian.AppendUint16(nil, uint16(len(tlv.GetValue()))))
		body.Write(tlv.GetValue())
	}
	head := append([]byte(signature), command, family)
	head = binary.BigEndian.AppendUint16(head, uint16(body.Len()))
	_, err := w.Write(append(head, body.Bytes()...))
	return err
}
