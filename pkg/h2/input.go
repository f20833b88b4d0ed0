package h2

import (
	"bufio"
	"sync"
)

// readBuffer holds what is read from the connection at once. It is larger than a
// TLS record, so that a record is not split.
const readBuffer = 128 << 10

// Waiter is a connection that tells when it has something to read. While a Conn
// waits for that, it holds no buffer.
type Waiter interface {
	// Wait returns when Read would return at once, or with its error.
	Wait() error
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBuffer) }}

// await gives the reader's buffer back while there is nothing to read.
func (c *Conn) await() error {
	w, ok := c.nc.(Waiter)
	if !ok || c.br.Buffered() > 0 {
		return nil
	}
	c.br.Reset(nil)
	readers.Put(c.br)
	c.br = nil
	err := w.Wait()
	c.br = readers.Get().(*bufio.Reader)
	c.br.Reset(c.nc)
	return err
}
