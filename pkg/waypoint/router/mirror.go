package router

import (
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/route"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// mirrorTimeout bounds a mirrored request whose route has no timeout.
const mirrorTimeout = 15 * time.Second

// mirrorEarly sends a request without a body to the mirrors; one with a body goes
// when it has come whole, in mirrorLate.
func (f *forwarding) mirrorEarly() {
	if f.upload == nil {
		f.mirror(nil, nil)
	}
}

func (f *forwarding) mirrorLate() {
	if f.upload == nil || len(f.forward.Mirrors) == 0 {
		return
	}
	if kept, trailers, whole := f.upload.whole(); whole {
		f.mirror(kept, trailers)
	}
}

// mirror sends the copies that find a place; kept is the body, or nil.
func (f *forwarding) mirror(kept *body, trailers message.Fields) {
	for i := range f.forward.Mirrors {
		m := f.forward.Mirrors[i]
		in := route.Input{Request: f.x.Request, Info: f.info, Random: f.info.Seed>>11 + uint64(i)*0x9e3779b97f4a7c15}
		name := m.Cluster(&in)
		cl := f.r.o.Clusters.Get(name)
		if name == "" || cl == nil {
			continue
		}
		select {
		case f.r.o.Keep.mirrors <- struct{}{}:
		default:
			continue
		}
		shallow := *f.x.Request
		shallow.Fields = slices.Clone(shallow.Fields)
		request := &shallow
		switch {
		case m.HostLiteral != "":
			request.Authority = m.HostLiteral
		case !m.KeepHost:
			request.Authority = shadowHost(request.Authority)
		}
		in.Request = request
		m.Rewrite(&in)
		// What was put in may stand in the connection's buffer, too.
		request, trailers := clone(request), cloneFields(trailers)
		timeout := f.global
		if timeout <= 0 {
			timeout = mirrorTimeout
		}
		choice := cluster.Choice{Random: f.info.Seed ^ uint64(i+1)*0x9e3779b97f4a7c15, Hash: f.call.hash, Hashed: f.call.hashed, Destination: f.info.Local}
		router, conn := f.r, f.info.Connection
		var content []byte
		if kept != nil {
			kept.hold()
			content = kept.bytes
		}
		go func() {
			defer func() { <-router.o.Keep.mirrors }()
			if kept != nil {
				defer kept.let()
			}
			defer router.o.Guard.Recover("a mirrored request")
			router.copyTo(cl, choice, conn, request, content, trailers, timeout)
		}()
	}
}

// copyTo sends a copy of a request and forgets the answer. Whom the caller may not
// reach gets none.
func (r *Router) copyTo(cl *cluster.Cluster, choice cluster.Choice, caller *streaminfo.Connection, request *message.Request, body []byte, trailers message.Fields, timeout time.Duration) {
	host, err := cl.Choose(choice)
	if err != nil {
		return
	}
	if r.o.Authorize != nil && r.o.Authorize(caller, host.Dial, host.InMesh()) != nil {
		return
	}
	deadline := time.Now().Add(timeout)
	s, err := cl.Open(host, cluster.OpenOptions{Deadline: deadline, Downstream: request.Version, ServerName: hostOf(request.Authority)})
	if err != nil {
		return
	}
	defer s.Close()
	_ = s.SetReadDeadline(deadline)
	_ = s.SetWriteDeadline(deadline)
	if len(body) == 0 && len(trailers) == 0 {
		err = s.Send(request, true)
	} else if err = s.Send(request, false); err == nil {
		if _, err = s.Write(body); err == nil {
			err = s.Finish(trailers)
		}
	}
	for sent := time.Now(); err == nil; {
		var response *message.Response
		if response, err = s.Response(); err == nil && response.Status >= 200 {
			cl.Answered(time.Since(sent))
			host.Report(cluster.Responded, response.Status)
			cl.CountStatus(response.Status)
			break
		}
	}
	for err == nil && s.HasBody() {
		if _, err = s.Next(); errors.Is(err, io.EOF) {
			return
		}
	}
}

// shadowHost is the authority by which a mirrored request is told apart.
func shadowHost(authority string) string {
	host, port, ok := strings.Cut(authority, ":")
	if !ok || strings.Contains(port, ":") {
		return authority + "-shadow"
	}
	return host + "-shadow:" + port
}

// clone copies a head out of the connection's buffer.
func clone(r *message.Request) *message.Request {
	c := *r
	c.Method, c.Scheme, c.Authority, c.Path, c.Upgrade = strings.Clone(r.Method), strings.Clone(r.Scheme), strings.Clone(r.Authority), strings.Clone(r.Path), strings.Clone(r.Upgrade)
	c.Fields = cloneFields(r.Fields)
	return &c
}

func cloneFields(fields message.Fields) message.Fields {
	out := make(message.Fields, len(fields))
	for i, f := range fields {
		out[i] = message.Field{Name: strings.Clone(f.Name), Value: strings.Clone(f.Value)}
	}
	return out
}
