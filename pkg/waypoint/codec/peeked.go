package codec

// peeked is a connection with bytes that were read ahead.
type peeked struct {
	Conn
	ahead []byte
}

// Ahead takes what [Sniff] read ahead from a connection, and returns the connection
// without it: what relays bytes may then do so from the socket itself.
func Ahead(c Conn) ([]byte, Conn) {
	if p, ok := c.(*peeked); ok {
		return p.take()
	}
	return nil, c
}

// take is what was read ahead, and the connection below.
func (p *peeked) take() ([]byte, Conn) {
	ahead := p.ahead
	p.ahead = nil
	return ahead, p.Conn
}

// Read implements [net.Conn].
func (p *peeked) Read(b []byte) (int, error) {
	if len(p.ahead) > 0 {
		n := copy(b, p.ahead)
		p.ahead = p.ahead[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}
