// Command fasthttp is a reverse proxy of fasthttp's server and client, for the
// benchmark alone: a header that chooses, else 90 of 100 to the first origin. It
// passes on no trailers, no upgrades, and bodies only when they are whole.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/valyala/fasthttp"
)

func main() {
	listen, v1, v2 := flag.String("listen", "", ""), flag.String("v1", "", ""), flag.String("v2", "", "")
	flag.Parse()
	client := func(addr string) *fasthttp.HostClient { return &fasthttp.HostClient{Addr: addr, MaxConns: 1024} }
	first, second := client(*v1), client(*v2)
	s := &fasthttp.Server{NoDefaultServerHeader: true, Handler: func(x *fasthttp.RequestCtx) {
		to := first
		if string(x.Request.Header.Peek("X-Canary")) == "always" || rand.IntN(100) >= 90 {
			to = second
		}
		x.Request.Header.Del("Connection")
		if err := to.Do(&x.Request, &x.Response); err != nil {
			x.Error(err.Error(), fasthttp.StatusBadGateway)
			return
		}
		x.Response.Header.Del("Connection")
	}}
	if err := s.ListenAndServe(*listen); err != nil {
		fmt.Fprintln(os.Stderr, "fasthttp:", err)
		os.Exit(1)
	}
}
