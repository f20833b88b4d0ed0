package cluster

import "testing"

// What a request over a kept connection costs here, without the exchange itself.
func BenchmarkReuse(b *testing.B) {
	s := newServer(b)
	m := newManager(b, Options{})
	c := m.eds(b, `"lb_policy":"LEAST_REQUEST","outlier_detection":{}`, s.addr, "127.0.0.1:1")
	h := c.Hosts()[0]
	b.ReportAllocs()
	r := uint64(1)
	for b.Loop() {
		if _, err := m.Get("c").Choose(Choice{Random: r}); err != nil {
			b.Fatal(err)
		}
		st, err := c.Open(h, OpenOptions{})
		if err != nil {
			b.Fatal(err)
		}
		h.Report(Responded, 200)
		st.Close()
		r++
	}
}
