// Semantics asks how TCP behaves, one question after the other, between a client
// and a server that may have a mesh between them. Run in two pods, with and
// without the mesh, the answers must be equal but for the rows that
// differences.txt names.
//
//	semantics serve [::]:7000          answers on this port, 7001 (speaks first), 7002 (closed)
//	semantics ask 10.0.0.2:7000        prints a line per question: name, tab, answer
package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"
)

func main() {
	if len(os.Args) == 3 {
		switch os.Args[1] {
		case "serve":
			fail(serve(os.Args[2]))
			return
		case "ask":
			addr, err := netip.ParseAddrPort(os.Args[2])
			fail(err)
			askAll(addr)
			return
		}
	}
	fmt.Fprintln(os.Stderr, "usage: semantics serve ADDRESS | semantics ask ADDRESS")
	os.Exit(2)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "semantics:", err)
		os.Exit(1)
	}
}

// askTimeout bounds one question; a mesh that hangs is an answer too.
const askTimeout = 30 * time.Second

func askAll(server netip.AddrPort) {
	for _, q := range questions {
		answer := make(chan string, 1)
		go func() {
			defer func() {
				if p := recover(); p != nil {
					answer <- fmt.Sprint("error: ", p)
				}
			}()
			answer <- q.ask(server)
		}()
		select {
		case a := <-answer:
			fmt.Printf("%s\t%s\n", q.name, strings.ReplaceAll(a, "\n", " "))
		case <-time.After(askTimeout):
			fmt.Printf("%s\thangs\n", q.name)
		}
	}
}

// must ends the question with what went wrong; askAll prints it.
func must(err error, doing string) {
	if err != nil {
		panic(doing + ": " + err.Error())
	}
}
