package proxies

import "testing"

func TestTrouble(t *testing.T) {
	for text, want := range map[string]bool{
		`2026-01-01T00:00:00Z	info	access	connection complete	src.addr=10.0.0.1:1`:                               false,
		`2026-01-01T00:00:00Z	warn	access	connection failed	src.addr=10.0.0.1:1`:                                 true,
		`2026-01-01T00:00:00Z	error	access	connection complete	error="connection closed"`:                        true,
		`[2026-01-01T00:00:00Z] "GET /productpage HTTP/1.1" 200 - via_upstream - "-" 0 5 1`:                      false,
		`[2026-01-01T00:00:00Z] "GET /productpage HTTP/1.1" 503 UH no_healthy_upstream - "-" 0 19 0`:             true,
		`{"method":"GET","path":"/","response_code":503,"response_flags":"UH"}`:                                  true,
		`{"method":"GET","path":"/","response_code":200,"response_flags":"-"}`:                                   false,
		`time=2026-01-01T00:00:00Z level=WARN msg="configuration refused" resource=inbound err="no such filter"`: true,
		`time=2026-01-01T00:00:00Z level=INFO msg="log level changed" level=debug`:                               false,
	} {
		if got := (Record{Text: text}).Trouble(); got != want {
			t.Errorf("%v, want %v: %s", got, want, text)
		}
	}
}
