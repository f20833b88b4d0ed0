package matcher

import (
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

func read[M proto.Message](t testing.TB, m M, js string) M {
	t.Helper()
	if err := protojson.Unmarshal([]byte(js), m); err != nil {
		t.Fatalf("%s: %v", js, err)
	}
	return m
}

func TestStrings(t *testing.T) {
	for _, c := range []struct {
		matcher string
		yes, no []string
	}{
		{`{"exact": "Ab"}`, []string{"Ab"}, []string{"ab", "Abc", ""}},
		{`{"exact": ""}`, []string{""}, []string{"a"}},
		{`{"exact": "Ab", "ignoreCase": true}`, []string{"aB", "ab"}, []string{"abc"}},
		{`{"exact": "É", "ignoreCase": true}`, []string{"É"}, []string{"é"}},
		{`{"prefix": "Ab", "ignoreCase": true}`, []string{"aBc"}, []string{"a", "cab"}},
		{`{"suffix": "ab"}`, []string{"ab", "cab"}, []string{"abc", "b"}},
		{`{"contains": "Ab", "ignoreCase": true}`, []string{"xaBx", "ab"}, []string{"a b", ""}},
		{`{"safeRegex": {"regex": "a|ab"}, "ignoreCase": true}`, []string{"a", "ab"}, []string{"A", "abc"}},
	} {
		m, err := NewString(read(t, new(matcherv3.StringMatcher), c.matcher))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range c.yes {
			if !m.Match(s) {
				t.Errorf("%s does not match %q", c.matcher, s)
			}
		}
		for _, s := range c.no {
			if m.Match(s) {
				t.Errorf("%s matches %q", c.matcher, s)
			}
		}
	}
	for _, bad := range []string{`{}`, `{"prefix": ""}`, `{"safeRegex": {"regex": "["}}`, `{"safeRegex": {}}`, `{"custom": {"name": "x"}}`} {
		if _, err := NewString(read(t, new(matcherv3.StringMatcher), bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func TestRewrites(t *testing.T) {
	for _, c := range []struct{ pattern, substitution, in, want string }{
		{"a", "b", "aXa", "bXb"},
		{"a*", "-", "baac", "-b-c-"},
		{"(a)(b)?", `\2\1`, "ab a", "ba a"},
		{"x", `\\\0`, "x", `\x`},
		{"^/v1", "", "/v1/v1", "/v1"},
		{"é", "e", "café é", "cafe e"},
		{"nothing", "y", "caf\xff", "caf\xff"},
		{"f", "F", "caf\xff", "caF\xff"},
	} {
		w, err := NewRewrite(&matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: c.pattern}, Substitution: c.substitution})
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		if got := w.Replace(c.in); got != c.want {
			t.Errorf("%s to %s on %q: %q, want %q", c.pattern, c.substitution, c.in, got, c.want)
		}
	}
	for _, c := range []struct{ pattern, substitution, want string }{
		{"", "", "pattern.regex is empty"},
		{"(", "", "pattern.regex"},
		{"a", `\1`, "names group 1, but the pattern has 0"},
		{"a", `\`, "lone backslash"},
		{"a", `\n`, "a digit or another one"},
		{"a", "x\r\ny: z", "line break"},
	} {
		_, err := NewRewrite(&matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: c.pattern}, Substitution: c.substitution})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s to %s: error %v, want %q", c.pattern, c.substitution, err, c.want)
		}
	}
}

func TestHeaders(t *testing.T) {
	for _, c := range []struct {
		matcher string
		lines   []string
		want    bool
	}{
		{`{"name": "A", "stringMatch": {"exact": "x"}}`, []string{"x"}, true},
		{`{"name": "a", "stringMatch": {"exact": "x"}}`, []string{"y", "x"}, true},
		{`{"name": "a", "stringMatch": {"exact": "y,x"}}`, []string{"y", "x"}, false},
		{`{"name": "a", "stringMatch": {"exact": "x"}, "invertMatch": true}`, []string{"y", "x"}, false},
		{`{"name": "a", "stringMatch": {"exact": "x"}, "invertMatch": true}`, []string{"y", "z"}, true},
		{`{"name": "a", "stringMatch": {"exact": "x"}, "invertMatch": true}`, nil, false},
		{`{"name": "a", "stringMatch": {"exact": "x"}, "invertMatch": true, "treatMissingHeaderAsEmpty": true}`, nil, true},
		{`{"name": "a", "rangeMatch": {"start": "1", "end": "10"}}`, []string{"x", " 9 "}, true},
		{`{"name": "a", "rangeMatch": {"start": "1", "end": "10"}}`, []string{"10"}, false},
		{`{"name": "a", "presentMatch": true}`, []string{"x", "y"}, true},
		{`{"name": "a", "presentMatch": false}`, []string{"x", "y"}, false},
		{`{"name": "a", "presentMatch": false, "treatMissingHeaderAsEmpty": true}`, nil, false},
		{`{"name": "a", "exactMatch": ""}`, []string{"x"}, true},
		{`{"name": "a", "exactMatch": ""}`, nil, false},
		{`{"name": "a", "prefixMatch": "x"}`, []string{"xy"}, true},
		{`{"name": "a", "suffixMatch": "y"}`, []string{"xy"}, true},
		{`{"name": "a", "containsMatch": "y"}`, []string{"xyz"}, true},
		{`{"name": "a", "safeRegexMatch": {"regex": "x.*"}}`, []string{"xyz"}, true},
		{`{"name": "user-agent", "stringMatch": {"exact": "x,y"}}`, []string{"x", "y"}, true},
		{`{"name": "user-agent", "stringMatch": {"exact": "y"}}`, []string{"x", "y"}, false},
	} {
		pb := read(t, new(routev3.HeaderMatcher), c.matcher)
		h, err := NewHeader(pb)
		if err != nil {
			t.Fatal(err)
		}
		r := &message.Request{Method: "GET", Path: "/"}
		for _, line := range c.lines {
			r.Fields.Add(strings.ToLower(pb.GetName()), line)
		}
		if got := h.Request(r); got != c.want {
			t.Errorf("%s on %q: %v", c.matcher, c.lines, got)
		}
		if resp := (&message.Response{Status: 200, Fields: r.Fields}); h.Response(resp) != c.want {
			t.Errorf("%s on a response with %q: %v", c.matcher, c.lines, !c.want)
		}
	}
	h, err := NewHeader(read(t, new(routev3.HeaderMatcher), `{"name": ":status", "stringMatch": {"exact": "503"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if !h.Response(&message.Response{Status: 503}) || h.Response(&message.Response{Status: 200}) {
		t.Error(":status is not the response's")
	}
}

func TestMetadata(t *testing.T) {
	all := streaminfo.Metadata{"f": {
		"s": "abc", "n": 5.0, "b": true, "null": nil, "list": []any{"x", 1.0}, "o": map[string]any{"in": "deep"},
	}}
	for _, c := range []struct {
		path, value string
		want        bool
	}{
		{`{"key": "s"}`, `{"stringMatch": {"prefix": "ab"}}`, true},
		{`{"key": "n"}`, `{"stringMatch": {"prefix": "5"}}`, false},
		{`{"key": "n"}`, `{"doubleMatch": {"exact": 5}}`, true},
		{`{"key": "n"}`, `{"doubleMatch": {"range": {"start": 1, "end": 5}}}`, false},
		{`{"key": "b"}`, `{"boolMatch": true}`, true},
		{`{"key": "null"}`, `{"nullMatch": {}}`, true},
		{`{"key": "none"}`, `{"nullMatch": {}}`, false},
		{`{"key": "none"}`, `{"presentMatch": true}`, false},
		{`{"key": "none"}`, `{"presentMatch": false}`, false},
		{`{"key": "s"}`, `{"presentMatch": true}`, true},
		{`{"key": "list"}`, `{"listMatch": {"oneOf": {"stringMatch": {"exact": "x"}}}}`, true},
		{`{"key": "s"}`, `{"listMatch": {"oneOf": {"stringMatch": {"exact": "abc"}}}}`, false},
		{`{"key": "o"}, {"key": "in"}`, `{"stringMatch": {"exact": "deep"}}`, true},
		{`{"key": "o"}, {"key": "in"}, {"key": "er"}`, `{"stringMatch": {"exact": "deep"}}`, false},
		{`{"key": "s"}`, `{"orMatch": {"valueMatchers": [{"boolMatch": true}, {"stringMatch": {"exact": "abc"}}]}}`, true},
	} {
		for _, invert := range []string{"false", "true"} {
			m, err := NewMetadata(read(t, new(matcherv3.MetadataMatcher), `{"filter": "f", "path": [`+c.path+`], "value": `+c.value+`, "invert": `+invert+`}`))
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Match(all); got != (c.want != (invert == "true")) {
				t.Errorf("%s %s, inverted %s: %v", c.path, c.value, invert, got)
			}
		}
	}
	for _, bad := range []string{`{"filter": "f", "value": {"boolMatch": true}}`, `{"filter": "f", "path": [{"key": "a"}]}`} {
		if _, err := NewMetadata(read(t, new(matcherv3.MetadataMatcher), bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

// A regular expression of a route means the same to Go's package regexp as to RE2,
// whatever bytes there are.
func FuzzRegexp(f *testing.F) {
	f.Add("/a.*", "/abc")
	f.Add("[^b]*é", "x\xff\xc3\xa9")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		re, err := NewRegexp(&matcherv3.RegexMatcher{Regex: pattern})
		if err != nil {
			return
		}
		if re.Match(s) && !strings.HasPrefix(s, re.Prefix) {
			t.Fatalf("%q matches %q, which does not begin with %q", pattern, s, re.Prefix)
		}
		if w, err := NewRewrite(&matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: pattern}, Substitution: `\0`}); err == nil {
			if got := w.Replace(s); got != s {
				t.Fatalf("%q replaced by itself: %q became %q", pattern, s, got)
			}
		}
	})
}
