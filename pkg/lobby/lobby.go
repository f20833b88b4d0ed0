// Package lobby is a listener with room for so many connections. Where all places are taken,
// the address with the most gives up its oldest: strangers who hold connections open keep
// nobody out who has few, and fill neither memory nor the table of files.
//
// For servers that anybody on the network reaches and that ask for no proof.
package lobby

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// Listen gives listener's connections places, of which there are so many; it must be positive.
func Listen(listener net.Listener, places int) net.Listener {
	return &lobby{Listener: listener, places: places, guests: map[netip.Addr]*list.List{}}
}

type lobby struct {
	net.Listener
	places int

	// mu guards below.
	mu     sync.Mutex
	taken  int
	guests map[netip.Addr]*list.List // of *guest, the oldest in front
}

// guest is a connection that has a place.
type guest struct {
	net.Conn
	lobby *lobby
	from  netip.Addr

	// The lobby's lock guards it; nil: the place is given up.
	at *list.Element
}

// Accept implements [net.Listener].
func (l *lobby) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := &guest{Conn: conn, lobby: l, from: Address(conn.RemoteAddr().String())}
	if out := l.seat(g); out != nil {
		_ = out.Conn.Close() // whoever serves it hears of it
	}
	return g, nil
}

// seat gives g a place, and returns who has to go for it, or nil.
func (l *lobby) seat(g *guest) (out *guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken >= l.places {
		most := l.guests[g.from]
		for _, all := range l.guests {
			if most == nil || all.Len() > most.Len() {
				most = all
			}
		}
		out, _ = most.Front().Value.(*guest)
		l.leaveLocked(out)
	}
	own := l.guests[g.from]
	if own == nil {
		own = list.New()
		l.guests[g.from] = own
	}
	g.at = own.PushBack(g)
	l.taken++
	return out
}

func (l *lobby) leaveLocked(g *guest) {
	if g.at == nil {
		return
	}
	own := l.guests[g.from]
	own.Remove(g.at)
	if own.Len() == 0 {
		delete(l.guests, g.from)
	}
	g.at = nil
	l.taken--
}

// Close implements [net.Conn].
func (g *guest) Close() error {
	g.lobby.mu.Lock()
	g.lobby.leaveLocked(g)
	g.lobby.mu.Unlock()
	return g.Conn.Close()
}

// Address is a peer's without its port, or none: all those of other networks are one.
func Address(peer string) netip.Addr {
	from, err := netip.ParseAddrPort(peer)
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr().Unmap()
}
