package filter

import (
	"testing"
	"time"

	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// exchangeOf is an exchange with fields, names before values.
func exchangeOf(fields ...string) *Context {
	r := &message.Request{Method: "GET", Path: "/"}
	for i := 0; i < len(fields); i += 2 {
		r.Fields.Add(fields[i], fields[i+1])
	}
	return &Context{
		Info: &streaminfo.Info{Request: r}, Request: r,
		Config: func(string) any { return nil }, Gone: func() bool { return false },
	}
}

func faultOf(t *testing.T, config string) *fault {
	t.Helper()
	var c faultv3.HTTPFault
	if err := protojson.Unmarshal([]byte(config), &c); err != nil {
		t.Fatal(err)
	}
	a, err := anypb.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	f, err := newFault("fault", a)
	if err != nil {
		t.Fatal(err)
	}
	return f.(*fault)
}

const always = `"percentage":{"numerator":100}`

func TestFaultsByHeader(t *testing.T) {
	const byHeader = `{"abort":{"header_abort":{},` + always + `},"delay":{"header_delay":{},` + always + `}}`
	for name, c := range map[string]struct {
		config string
		fields []string
		status int // 0: no abort
		grpc   int // -1: none
		delays uint64
	}{
		"nothing asked":        {byHeader, nil, 0, -1, 0},
		"status":               {byHeader, []string{abortField, "418"}, 418, -1, 0},
		"no status":            {byHeader, []string{abortField, "600"}, 0, -1, 0},
		"no number":            {byHeader, []string{abortField, "4o4"}, 0, -1, 0},
		"gRPC":                 {byHeader, []string{abortGRPCField, "5"}, 200, 5, 0},
		"status before gRPC":   {byHeader, []string{abortGRPCField, "5", abortField, "404"}, 404, -1, 0},
		"share":                {byHeader, []string{abortField, "418", abortPercentField, "0"}, 0, -1, 0},
		"share of no number":   {byHeader, []string{abortField, "418", abortPercentField, "x"}, 418, -1, 0},
		"no more than allowed": {`{"abort":{"header_abort":{},"percentage":{}}}`, []string{abortField, "418", abortPercentField, "100"}, 0, -1, 0},
		"not allowed":          {`{"abort":{"http_status":404,` + always + `}}`, []string{abortField, "418", abortPercentField, "0"}, 404, -1, 0},
		"delay":                {byHeader, []string{delayField, "1"}, 0, -1, 1},
		"delay and abort":      {byHeader, []string{delayField, "1", abortField, "503"}, 503, -1, 1},
		"delay of nothing":     {byHeader, []string{delayField, "0"}, 0, -1, 0},
		"share of delays":      {byHeader, []string{delayField, "1", delayShareField, "0"}, 0, -1, 0},
		"node":                 {`{"downstream_nodes":["n"],"abort":{"http_status":404,` + always + `}}`, []string{"x-envoy-downstream-service-node", "n"}, 404, -1, 0},
		"another node":         {`{"downstream_nodes":["n"],"abort":{"http_status":404,` + always + `}}`, []string{"x-envoy-downstream-service-node", "m"}, 0, -1, 0},
		"no node":              {`{"downstream_nodes":["n"],"abort":{"http_status":404,` + always + `}}`, nil, 0, -1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := faultOf(t, c.config)
			status, grpc := 0, -1
			if reply := f.Request(exchangeOf(c.fields...)); reply != nil {
				if status = reply.Status; reply.GRPCStatus != nil {
					grpc = *reply.GRPCStatus
				}
			}
			if status != c.status || grpc != c.grpc || f.delays.Load() != c.delays {
				t.Errorf("status %d, gRPC %d, %d delays; want %d, %d and %d", status, grpc, f.delays.Load(), c.status, c.grpc, c.delays)
			}
		})
	}
}

// A fault is active until its exchange ends, delayed and aborted or not, and no more are
// than are allowed.
func TestActiveFaults(t *testing.T) {
	f := faultOf(t, `{"max_active_faults":2,"delay":{"fixed_delay":"0.001s",`+always+`},"abort":{"http_status":503,`+always+`}}`)
	first, second := exchangeOf(), exchangeOf()
	for i, x := range []*Context{first, second} {
		if reply := f.Request(x); reply == nil || reply.Status != 503 {
			t.Fatalf("exchange %d: %+v", i, reply)
		}
	}
	if reply := f.Request(exchangeOf()); reply != nil {
		t.Errorf("a third one: %+v", reply)
	}
	first.End()
	first.End() // once
	if reply := f.Request(exchangeOf()); reply == nil {
		t.Error("one has ended, and there is no place")
	}
	want := map[string]uint64{"fault.aborts_injected": 3, "fault.delays_injected": 3, "fault.faults_overflow": 2, "fault.active_faults": 2}
	for name, n := range f.Stats() {
		if n != want[name] {
			t.Errorf("%s is %d, want %d", name, n, want[name])
		}
	}
	none := faultOf(t, `{"max_active_faults":0,"abort":{"http_status":503,`+always+`}}`)
	if reply := none.Request(exchangeOf()); reply != nil {
		t.Errorf("none are allowed: %+v", reply)
	}
}

// A delay ends when the exchange may last no longer, or its client goes.
func TestDelayEnds(t *testing.T) {
	f := faultOf(t, `{"delay":{"header_delay":{},`+always+`}}`)
	late := &Reply{Status: 504}
	x := exchangeOf(delayField, "9000000000000000000")
	x.Overdue = func() *Reply { return late }
	start := time.Now()
	if reply := f.Request(x); reply != late {
		t.Errorf("overdue: %+v", reply)
	}
	x.Gone = func() bool { return true }
	if reply := f.Request(x); reply == nil || !reply.Abort {
		t.Errorf("gone: %+v", reply)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %s", d)
	}
}
