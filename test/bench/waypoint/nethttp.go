package waypoint

import (
	"flag"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"time"
)

// nethttpMain is a proxy of the standard library's parts, with the same features.
func nethttpMain(args []string) error {
	f := flag.NewFlagSet("l7-nethttp", flag.ExitOnError)
	listen, v1, v2, h2 := f.String("listen", "", ""), f.String("v1", "", ""), f.String("v2", "", ""), f.Bool("h2", false, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	var protocols http.Protocols
	protocols.SetHTTP1(!*h2)
	protocols.SetUnencryptedHTTP2(*h2)
	proxy := &httputil.ReverseProxy{
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true, Protocols: &protocols},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", *v1
			if r.In.Header.Get("X-Canary") == "always" || rand.IntN(100) >= 90 { //nolint:gosec // draws an origin
				r.Out.URL.Host = *v2
			}
		},
	}
	s := &http.Server{Addr: *listen, Handler: proxy, Protocols: &protocols, ReadHeaderTimeout: time.Minute}
	return s.ListenAndServe()
}
