package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"

	"github.com/miekg/dns"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// Server answers on a node's addresses from what it was last given.
type Server struct {
	views   atomic.Pointer[Views]
	servers []*dns.Server
}

// Views are the names as pods outside the mesh see them, and as those inside do:
// the mesh gives addresses to hosts outside that only its pods can reach.
type Views struct {
	Plain, Mesh *Zone
	// Inside are the addresses of the mesh's pods.
	Inside map[netip.Addr]bool
}

// of is the zone that a client sees.
func (v *Views) of(client net.Addr) *Zone {
	a, err := netip.ParseAddrPort(client.String())
	if err == nil && v.Inside[a.Addr().Unmap()] {
		return v.Mesh
	}
	return v.Plain
}

// Listen opens UDP and TCP port 53 on addrs inside the node's namespace.
func Listen(ns *netns.NS, addrs []netip.Addr) (*Server, error) {
	s := &Server{}
	s.views.Store(&Views{Plain: NewZone()})
	err := ns.Do(func() error {
		for _, a := range addrs {
			at := net.JoinHostPort(a.String(), strconv.Itoa(53))
			udp, err := net.ListenPacket("udp", at)
			if err != nil {
				return fmt.Errorf("resolver: %w", err)
			}
			s.servers = append(s.servers, &dns.Server{PacketConn: udp, Handler: s})
			tcp, err := net.Listen("tcp", at)
			if err != nil {
				return fmt.Errorf("resolver: %w", err)
			}
			s.servers = append(s.servers, &dns.Server{Listener: tcp, Handler: s})
		}
		return nil
	})
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// Publish makes v what is answered from now on; it must not change any more.
func (s *Server) Publish(v *Views) { s.views.Store(v) }

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	done := make(chan error, len(s.servers))
	for _, srv := range s.servers {
		go func() { done <- srv.ActivateAndServe() }()
	}
	var failed error
	ended := 0
	select {
	case <-ctx.Done():
	case failed = <-done:
		ended = 1
	}
	s.close()
	for range len(s.servers) - ended {
		<-done
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("resolver: %w", failed)
}

func (s *Server) close() {
	for _, srv := range s.servers {
		if srv.PacketConn != nil {
			_ = srv.PacketConn.Close()
		}
		if srv.Listener != nil {
			_ = srv.Listener.Close()
		}
	}
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	_ = w.WriteMsg(reply(s.views.Load().of(w.RemoteAddr()), q, udp)) // a client that went away has no use for the error
}

func reply(z *Zone, q *dns.Msg, udp bool) *dns.Msg {
	m := new(dns.Msg)
	if len(q.Question) != 1 {
		return m.SetRcode(q, dns.RcodeFormatError)
	}
	if q.Opcode != dns.OpcodeQuery {
		return m.SetRcode(q, dns.RcodeNotImplemented)
	}
	m.SetReply(q)
	m.Authoritative, m.RecursionAvailable, m.Compress = true, true, true
	z.answer(q.Question[0], m)
	limit := dns.MaxMsgSize
	if udp {
		limit = dns.MinMsgSize
	}
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(dns.DefaultMsgSize, false)
		if udp {
			limit = max(limit, int(opt.UDPSize()))
		}
	}
	m.Truncate(limit)
	return m
}
