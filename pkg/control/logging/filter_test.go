package logging

import (
	"regexp"
	"strings"
	"testing"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
)

// exchange is what filters see.
type exchange struct {
	code    uint32
	headers map[string]string
}

// logged decides as Envoy documents its filters.
func logged(t *testing.T, f *accesslogv3.AccessLogFilter, x exchange) bool {
	t.Helper()
	switch s := f.FilterSpecifier.(type) {
	case *accesslogv3.AccessLogFilter_AndFilter:
		for _, one := range s.AndFilter.Filters {
			if !logged(t, one, x) {
				return false
			}
		}
		return true
	case *accesslogv3.AccessLogFilter_OrFilter:
		for _, one := range s.OrFilter.Filters {
			if logged(t, one, x) {
				return true
			}
		}
		return false
	case *accesslogv3.AccessLogFilter_StatusCodeFilter:
		c := s.StatusCodeFilter.Comparison
		switch n := c.Value.DefaultValue; c.Op {
		case accesslogv3.ComparisonFilter_EQ:
			return x.code == n
		case accesslogv3.ComparisonFilter_NE:
			return x.code != n
		case accesslogv3.ComparisonFilter_GE:
			return x.code >= n
		case accesslogv3.ComparisonFilter_LE:
			return x.code <= n
		}
	case *accesslogv3.AccessLogFilter_HeaderFilter:
		h := s.HeaderFilter.Header
		value, present := x.headers[h.Name]
		if h.GetPresentMatch() {
			return present != h.InvertMatch
		}
		if !present {
			return false
		}
		m := h.GetStringMatch()
		holds := false
		switch {
		case m.GetExact() != "":
			holds = value == m.GetExact()
		case m.GetPrefix() != "":
			holds = strings.HasPrefix(value, m.GetPrefix())
		case m.GetSuffix() != "":
			holds = strings.HasSuffix(value, m.GetSuffix())
		case m.GetContains() != "":
			holds = strings.Contains(value, m.GetContains())
		case m.GetSafeRegex() != nil:
			holds = regexp.MustCompile("^(?:" + m.GetSafeRegex().Regex + ")$").MatchString(value)
		}
		return holds != h.InvertMatch
	}
	t.Fatalf("filter %v is not known", f)
	return false
}

func TestExpressions(t *testing.T) {
	bot := map[string]string{":method": "GET", ":path": "/a/b?x=/z", "user-agent": "Bot/1", "x-v": "1"}
	for _, tc := range []struct {
		expression string
		x          exchange
		want       bool
	}{
		{"response.code >= 400", exchange{code: 400}, true},
		{"response.code >= 400", exchange{code: 399}, false},
		{"response.code > 400", exchange{code: 400}, false},
		{"response.code < 400", exchange{code: 399}, true},
		{"response.code < 400", exchange{code: 400}, false},
		{"!(response.code < 400)", exchange{code: 400}, true},
		{"!(response.code <= 400)", exchange{code: 400}, false},
		{"response.code == 503 || response.code == 504", exchange{code: 504}, true},
		{"!(response.code == 503 || response.code == 504)", exchange{code: 504}, false},
		{"!(response.code == 503 || response.code == 504)", exchange{code: 200}, true},
		{"response.code != 200 && request.method == 'GET'", exchange{500, bot}, true},
		{"response.code == 1 && response.code == 2 || response.code == 500", exchange{code: 500}, true},
		{"!has(request.useragent) || !(request.useragent.startsWith(\"Bot\"))", exchange{200, bot}, false},
		{"!has(request.useragent) || !(request.useragent.startsWith(\"Bot\"))", exchange{200, nil}, true},
		{"'X-V' in request.headers", exchange{200, bot}, true},
		{"request.headers['X-V'] != '2'", exchange{200, bot}, true},
		{"request.headers['x-v'].matches('[0-9]')", exchange{200, bot}, true},
		{"request.url_path == '/a/b'", exchange{200, bot}, true},
		{"request.url_path.endsWith('/b')", exchange{200, bot}, true},
		{"request.url_path.contains('z')", exchange{200, bot}, false},
		{"request.url_path.startsWith('/a')", exchange{200, bot}, true},
		{"request.path.contains('z')", exchange{200, bot}, true},
		{"!!(request.path.endsWith('/z'))", exchange{200, bot}, true},
	} {
		f, err := filter(tc.expression, false)
		if err != nil {
			t.Errorf("%s: %v", tc.expression, err)
			continue
		}
		if err := f.ValidateAll(); err != nil {
			t.Errorf("%s: %v", tc.expression, err)
		}
		if got := logged(t, f, tc.x); got != tc.want {
			t.Errorf("%s logs %+v: %v, want %v", tc.expression, tc.x, got, tc.want)
		}
	}
}

func TestExpressionsThatAreNotRead(t *testing.T) {
	for expression, want := range map[string]string{
		"":                                   `want an attribute such as response.code, found ""`,
		"connection.mtls":                    `behind connection.mtls, want one of == != >= <= > <, found ""`,
		"response.code >= '4'":               `response.code is compared with a number, not "4"`,
		"response.code >= 4 5":               `unexpected "5"`,
		"response.code + 1 > 4":              `unexpected "+"`,
		"response.code.startsWith('4')":      `response.code is compared with a number, not "4"`,
		"source.address == 'x'":              `the attribute source.address cannot be matched`,
		"request.method > 'a'":               `request.method is text: > is not for it`,
		"request.method == 'a":               `the quote in 'a is not closed`,
		"request.method == 7":                `request.method is compared with text, not with 7`,
		`request.method == 'a\'b'`:           `escapes are not read`,
		"(response.code >= 4":                `want ")", found ""`,
		"request.headers['x'].size() > 2":    `"size" is not read`,
		"request.headers['x'].matches('[')":  `matches: error parsing regexp`,
		"request.url_path.matches('a')":      `matches is not for request.url_path`,
		"request.headers['x'].contains('')":  `contains needs some text`,
		"response.code < 0":                  `no response.code is below 0`,
		strings.Repeat("(", 5000) + "a == 1": `the expression is longer than 4096 bytes`,
	} {
		_, err := filter(expression, false)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", expression, err, want)
		}
	}
}

// FuzzFilter holds that an expression gives a valid filter or an error.
func FuzzFilter(f *testing.F) {
	f.Add("response.code >= 400 && !has(request.headers['x'])")
	f.Add("request.url_path.matches('a') || ('x' in request.headers)")
	f.Fuzz(func(t *testing.T, expression string) {
		got, err := filter(expression, false)
		if err != nil {
			return
		}
		if err := got.ValidateAll(); err != nil {
			t.Errorf("%q gives an invalid filter: %v", expression, err)
		}
	})
}
