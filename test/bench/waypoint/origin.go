package waypoint

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
)

// answers are bodies by path; all others are empty.
var answers = map[string][]byte{"/1k": []byte(strings.Repeat("x", 1<<10))}

// counts is what an origin has served.
type counts struct{ V1, V2 int64 }

// originMain serves two versions of one service in HTTP/1 and HTTP/2, and says on a
// third address how many requests each had. It is the cheapest that there is here:
// what it costs is not measured.
func originMain(args []string) error {
	f := flag.NewFlagSet("l7-origin", flag.ExitOnError)
	v1, v2, admin := f.String("v1", "", ""), f.String("v2", "", ""), f.String("admin", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	var served [2]atomic.Int64
	for i, addr := range []string{*v1, *v2} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					_ = codec.ServeHTTP(codec.TCPConn{TCPConn: c.(*net.TCPConn)}, codec.Options{}, func(x codec.Exchange) {
						served[i].Add(1)
						answer(x)
					})
				}()
			}
		}()
	}
	l, err := net.Listen("tcp", *admin)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { //nolint:gosec // of this run alone
		_ = json.NewEncoder(w).Encode(counts{served[0].Load(), served[1].Load()})
	}))
}

var grpcHead = message.Fields{{Name: "content-type", Value: "application/grpc"}}

func answer(x codec.Exchange) {
	if strings.HasPrefix(x.Request().Fields.Get("content-type"), "application/grpc") {
		echo(x)
		return
	}
	body := answers[x.Request().Path]
	if x.Respond(&message.Response{Status: 200, ContentLength: int64(len(body))}, len(body) == 0) != nil || len(body) == 0 {
		return
	}
	if _, err := x.Write(body); err == nil {
		_ = x.Finish(nil) // a client that is gone is the run's end
	}
}

// echo is a gRPC method that sends back every message.
func echo(x codec.Exchange) {
	if x.Respond(&message.Response{Status: 200, Fields: append(message.Fields{}, grpcHead...), ContentLength: message.Unknown}, false) != nil {
		return
	}
	for {
		b, err := x.Next()
		if len(b) > 0 {
			if _, err := x.Write(b); err != nil {
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = x.Finish(message.Fields{{Name: "grpc-status", Value: "0"}}) // as above
			return
		case err != nil:
			return
		}
		if !x.Ready() && x.Flush() != nil {
			return
		}
	}
}

func askCounts(url string) (c counts, err error) {
	res, err := http.Get(url) //nolint:gosec,noctx // of this run alone
	if err != nil {
		return c, err
	}
	defer res.Body.Close()
	return c, json.NewDecoder(res.Body).Decode(&c)
}
