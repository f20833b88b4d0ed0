package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// parts are the processes that bench starts in pods.
var parts = map[string]func([]string) error{"sink": sink, "load": load, "hold": hold, "ask": ask, "relay": relayMain}

// What a client wants of the sink, its first byte.
const (
	wantDiscard = 'd'
	wantEcho    = 'e'
	wantByte    = 'b'
)

// sink serves until it is killed.
func sink(args []string) error {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			var mode [1]byte
			if _, err := io.ReadFull(c, mode[:]); err != nil {
				return
			}
			switch mode[0] {
			case wantDiscard:
				buf := make([]byte, 256<<10)
				for {
					if _, err := c.Read(buf); err != nil {
						break
					}
				}
				_, _ = c.Write([]byte{1}) // all has arrived
			case wantEcho:
				buf := make([]byte, 512)
				for {
					n, err := c.Read(buf)
					if n > 0 {
						if _, err := c.Write(buf[:n]); err != nil {
							return
						}
					}
					if err != nil {
						return
					}
				}
			case wantByte:
				_, _ = c.Write([]byte{1})
			}
		}()
	}
}

// measured is what a load saw.
type measured struct {
	Bytes, Operations, Errors int64
	Seconds                   float64
	P50, P99                  float64 // microseconds
	LastError                 string
}

func load(args []string) error {
	f := flag.NewFlagSet("load", flag.ExitOnError)
	addr, mode := f.String("addr", "", ""), f.String("mode", "", "")
	conns, size, duration := f.Int("conns", 1, ""), f.Int("size", 128, ""), f.Duration("duration", time.Second, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	var m measured
	var mu sync.Mutex
	var times []time.Duration
	var stop atomic.Bool
	var all sync.WaitGroup
	one := map[string]func(string, int, *atomic.Bool) (int64, []time.Duration, error){"bulk": bulk, "rr": roundTrips, "crr": connections}[*mode]
	start := time.Now()
	for range *conns {
		all.Go(func() {
			n, t, err := one(*addr, *size, &stop)
			mu.Lock()
			defer mu.Unlock()
			m.Bytes += n
			m.Operations += int64(len(t))
			times = append(times, t...)
			if err != nil {
				m.Errors++
				m.LastError = err.Error()
			}
		})
	}
	time.AfterFunc(*duration, func() { stop.Store(true) })
	all.Wait()
	m.Seconds = time.Since(start).Seconds()
	if len(times) > 0 {
		slices.Sort(times)
		m.P50 = float64(times[len(times)/2].Nanoseconds()) / 1e3
		m.P99 = float64(times[len(times)*99/100].Nanoseconds()) / 1e3
	}
	return json.NewEncoder(os.Stdout).Encode(m)
}

// bulk counts what has arrived, not what was written.
func bulk(addr string, _ int, stop *atomic.Bool) (n int64, _ []time.Duration, err error) {
	c, err := open(addr, wantDiscard)
	if err != nil {
		return 0, nil, err
	}
	defer c.Close()
	buf := make([]byte, 256<<10)
	for !stop.Load() {
		k, err := c.Write(buf)
		n += int64(k)
		if err != nil {
			return n, nil, err
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return n, nil, err
	}
	if _, err := io.ReadFull(c, buf[:1]); err != nil {
		return n, nil, fmt.Errorf("not all has arrived: %w", err)
	}
	return n, nil, nil
}

func roundTrips(addr string, size int, stop *atomic.Bool) (n int64, times []time.Duration, err error) {
	c, err := open(addr, wantEcho)
	if err != nil {
		return 0, nil, err
	}
	defer c.Close()
	buf := make([]byte, size)
	for !stop.Load() {
		start := time.Now()
		if _, err := c.Write(buf); err != nil {
			return n, times, err
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return n, times, err
		}
		times = append(times, time.Since(start))
		n += int64(2 * size)
	}
	return n, times, nil
}

func connections(addr string, _ int, stop *atomic.Bool) (n int64, times []time.Duration, err error) {
	var b [1]byte
	for !stop.Load() {
		start := time.Now()
		c, err := open(addr, wantByte)
		if err != nil {
			return n, times, err
		}
		_, err = io.ReadFull(c, b[:])
		_ = c.Close()
		if err != nil {
			return n, times, err
		}
		times = append(times, time.Since(start))
	}
	return n, times, nil
}

func open(addr string, mode byte) (net.Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	_, err = c.Write([]byte{mode})
	return c, err
}

// hold keeps connections open: it says "held", and for each line that it reads
// sends a burst over each of them and says "done".
func hold(args []string) error {
	f := flag.NewFlagSet("hold", flag.ExitOnError)
	addr, conns, burst := f.String("addr", "", ""), f.Int("conns", 1, ""), f.Int("burst", 64<<10, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	var held []net.Conn
	buf := make([]byte, *burst)
	exchange := func(c net.Conn, n int) error {
		go func() { _, _ = c.Write(buf[:n]) }()
		in := make([]byte, n)
		_, err := io.ReadFull(c, in)
		return err
	}
	for range *conns {
		c, err := open(*addr, wantEcho)
		if err != nil {
			return fmt.Errorf("after %d: %w", len(held), err)
		}
		if err := exchange(c, 1); err != nil {
			return fmt.Errorf("after %d: %w", len(held), err)
		}
		held = append(held, c)
	}
	fmt.Println("held")
	var line string
	for {
		if _, err := fmt.Scanln(&line); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			continue
		}
		for _, c := range held {
			if err := exchange(c, *burst); err != nil {
				return err
			}
		}
		fmt.Println("done")
	}
}

// asked is what came of asking.
type asked struct {
	Operations, Errors int64
	Slowest            float64 // milliseconds
	LastError          string
}

// ask keeps connections open, says "held", and asks over one after the other until its
// input ends; then over each once more, and says what it saw.
func ask(args []string) error {
	f := flag.NewFlagSet("ask", flag.ExitOnError)
	addr, conns := f.String("addr", "", ""), f.Int("conns", 1, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	var held []net.Conn
	var m asked
	one := func(c net.Conn) {
		start := time.Now()
		b := [1]byte{byte(start.UnixNano())}
		_ = c.SetDeadline(start.Add(30 * time.Second))
		_, err := c.Write(b[:])
		if err == nil {
			var got [1]byte
			if _, err = io.ReadFull(c, got[:]); err == nil && got != b {
				err = errors.New("another answer")
			}
		}
		m.Operations++
		m.Slowest = max(m.Slowest, float64(time.Since(start).Microseconds())/1e3)
		if err != nil {
			m.Errors++
			m.LastError = err.Error()
		}
	}
	for range *conns {
		c, err := open(*addr, wantEcho)
		if err != nil {
			return fmt.Errorf("after %d: %w", len(held), err)
		}
		if one(c); m.Errors > 0 {
			return fmt.Errorf("after %d: %s", len(held), m.LastError)
		}
		held = append(held, c)
	}
	m = asked{}
	fmt.Println("held")
	var over atomic.Bool
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); over.Store(true) }()
	for i := 0; !over.Load(); i++ {
		one(held[i%len(held)])
	}
	for _, c := range held {
		one(c)
	}
	return json.NewEncoder(os.Stdout).Encode(m)
}
