package app

import (
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"time"
)

// passedOn are the headers that Bookinfo hands from request to request: tracing,
// and those that routing rules look at.
var passedOn = []string{
	"X-Request-Id", "X-B3-Traceid", "X-B3-Spanid", "X-B3-Parentspanid", "X-B3-Sampled", "X-B3-Flags",
	"Traceparent", "Tracestate", "User-Agent", "End-User", "Authorization", "Cookie", "Baggage",
}

// maxAnswer bounds what one part of the application reads of another's answer.
const maxAnswer = 1 << 20

type client struct{ http *http.Client }

func newClient() client {
	return client{&http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		// A connection per request, as the original's: each is balanced anew.
		DisableKeepAlives: true,
	}}}
}

// get asks for JSON on behalf of a request.
func (c client) get(on *http.Request, url string, into any) error {
	req, err := http.NewRequestWithContext(on.Context(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	for _, h := range passedOn {
		if v, ok := on.Header[h]; ok {
			req.Header[h] = v
		}
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, res.Status)
	}
	return json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into)
}

// page is what the template shows. Either part may be missing.
type page struct {
	Details    *details
	Reviews    *bookReviews
	DetailsErr string
	ReviewsErr string
}

// StarsList is for the template.
func (r *rating) StarsList() []int { return make([]int, max(r.Stars, 0)) }

var pageTemplate = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html><head><title>Simple Bookstore App</title></head><body>
<h1>The Comedy of Errors</h1>
<h2>Book Details</h2>
{{with .Details}}<dl>
<dt>ISBN-10</dt><dd>{{.ISBN10}}</dd><dt>Publisher</dt><dd>{{.Publisher}}</dd><dt>Pages</dt><dd>{{.Pages}}</dd>
<dt>Type</dt><dd>{{.Type}}</dd><dt>Language</dt><dd>{{.Language}}</dd></dl>
{{else}}<p>Error fetching product details! {{.DetailsErr}}</p>{{end}}
<h2>Book Reviews</h2>
{{with .Reviews}}{{range .Reviews}}<blockquote><p>{{.Text}}</p><cite>{{.Reviewer}}</cite>
{{with .Rating}}{{if .Error}}<p>{{.Error}}</p>{{else}}<font color="{{.Color}}">{{range .StarsList}}&#9733;{{end}}</font>{{end}}{{end}}
</blockquote>{{end}}<p>Reviews served by: {{.Podname}}</p>
{{else}}<p>Error fetching product reviews! {{.ReviewsErr}}</p>{{end}}
</body></html>
`))

const product = `{"id":0,"title":"The Comedy of Errors","descriptionHtml":"Wikipedia Summary: The Comedy of Errors is one of William Shakespeare's early plays."}`

func runProductpage(ctx context.Context, env Env) error {
	c := newClient()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/productpage", http.StatusFound) })
	mux.HandleFunc("GET /productpage", func(w http.ResponseWriter, r *http.Request) {
		var p page
		var d details
		if err := c.get(r, serviceURL(env, "details")+"/details/0", &d); err != nil {
			p.DetailsErr = err.Error()
		} else {
			p.Details = &d
		}
		var rev bookReviews
		if err := c.get(r, serviceURL(env, "reviews")+"/reviews/0", &rev); err != nil {
			p.ReviewsErr = err.Error()
		} else {
			p.Reviews = &rev
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = pageTemplate.Execute(w, p)
	})
	mux.HandleFunc("GET /api/v1/products", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "["+product+"]\n")
	})
	proxy := func(service, path string, into func() any) {
		mux.HandleFunc("GET /api/v1/products/{id}"+path, func(w http.ResponseWriter, r *http.Request) {
			v := into()
			if err := c.get(r, serviceURL(env, service)+"/"+service+"/"+r.PathValue("id"), v); err != nil {
				answer(w, http.StatusServiceUnavailable, map[string]string{"error": err.Error()})
				return
			}
			answer(w, http.StatusOK, v)
		})
	}
	mux.HandleFunc("GET /api/v1/products/{id}", func(w http.ResponseWriter, r *http.Request) {
		var d details
		if err := c.get(r, serviceURL(env, "details")+"/details/"+r.PathValue("id"), &d); err != nil {
			answer(w, http.StatusServiceUnavailable, map[string]string{"error": err.Error()})
			return
		}
		answer(w, http.StatusOK, d)
	})
	proxy("reviews", "/reviews", func() any { return new(bookReviews) })
	proxy("ratings", "/ratings", func() any { return new(ratings) })
	return runBookinfo(ctx, env, mux)
}
