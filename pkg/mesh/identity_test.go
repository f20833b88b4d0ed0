package mesh

import "testing"

func TestParseIdentity(t *testing.T) {
	id, err := ParseIdentity("spiffe://cluster.local/ns/default/sa/reviews")
	if err != nil || id != (Identity{"cluster.local", "default", "reviews"}) {
		t.Fatalf("got %v, %v", id, err)
	}
	if got := id.String(); got != "spiffe://cluster.local/ns/default/sa/reviews" {
		t.Errorf("String = %q", got)
	}
	for _, bad := range []string{
		"", "spiffe://", "cluster.local/ns/a/sa/b", "spiffe:///ns/a/sa/b", "spiffe://td/ns//sa/b", "spiffe://td/ns/a/sa/",
		"spiffe://td/ns/a/sa/b/c", "spiffe://td/sa/a/ns/b", "SPIFFE://td/ns/a/sa/b", "spiffe://td/ns/a",
	} {
		if id, err := ParseIdentity(bad); err == nil {
			t.Errorf("ParseIdentity(%q) = %v, want an error", bad, id)
		}
	}
	if (Identity{}).String() != "" || (Identity{}).Principal() != "" {
		t.Error("the zero identity has a name")
	}
}

func FuzzParseIdentity(f *testing.F) {
	f.Add("spiffe://cluster.local/ns/default/sa/reviews")
	f.Add("spiffe://a/ns/b/sa/c/d")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseIdentity(s); err == nil && id.String() != s {
			t.Errorf("%q became %q", s, id.String())
		}
	})
}
