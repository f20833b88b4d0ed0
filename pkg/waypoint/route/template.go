package route

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matchv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	rewritev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/rewrite/uri_template/v3"
	prioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
)

// maxTemplateVariables is Envoy's limit.
const maxTemplateVariables = 5

var templateName = regexp.MustCompile(`\A[a-zA-Z][a-zA-Z0-9_]{0,15}\z`)

// NewTemplate compiles a UriTemplateMatchConfig: "*" is one segment, "**" at the end
// any number, "{name}" and "{name=pattern}" name what they match.
func NewTemplate(ext *corev3.TypedExtensionConfig) (*matcher.Regexp, error) {
	cfg := new(matchv3.UriTemplateMatchConfig)
	if err := ext.GetTypedConfig().UnmarshalTo(cfg); err != nil {
		return nil, fmt.Errorf("%q: only UriTemplateMatchConfig is supported: %w", ext.GetName(), err)
	}
	pattern, err := templatePattern(cfg.GetPathTemplate())
	if err != nil {
		return nil, fmt.Errorf("path_template %q: %w", cfg.GetPathTemplate(), err)
	}
	return matcher.NewRegexp(&matcherv3.RegexMatcher{Regex: pattern})
}

func templatePattern(t string) (string, error) {
	if !strings.HasPrefix(t, "/") {
		return "", errors.New("it does not begin with a slash")
	}
	var out strings.Builder
	names := map[string]bool{}
	// After a "**" only text of the same segment may follow.
	ended := false
	for t != "" {
		switch {
		case ended && strings.ContainsAny(t, "/*{"):
			return "", errors.New("after ** there may only be the text that its segment ends with")
		case strings.HasPrefix(t, "//"):
			return "", errors.New("it has an empty segment")
		case t[0] == '/':
			out.WriteByte('/')
			t = t[1:]
		case t[0] == '{':
			p, rest, last, err := templateVariable(t, names)
			if err != nil {
				return "", err
			}
			out.WriteString(p)
			t, ended = rest, last
		default:
			end := strings.IndexAny(t, "/{")
			if end < 0 {
				end = len(t)
			}
			p, last, err := templateGlobs(t[:end])
			if err != nil {
				return "", err
			}
			out.WriteString(p)
			t, ended = t[end:], ended || last
		}
	}
	return out.String(), nil
}

// templateVariable is the pattern of the variable that t begins with.
func templateVariable(t string, names map[string]bool) (p, rest string, last bool, err error) {
	inner, rest, ok := strings.Cut(t[1:], "}")
	if !ok {
		return "", "", false, errors.New("a { is not closed")
	}
	name, sub, has := strings.Cut(inner, "=")
	if !has {
		sub = "*"
	}
	if !templateName.MatchString(name) || names[name] {
		return "", "", false, fmt.Errorf("variable %q: a name is 1 to 16 letters, digits and underscores, and stands once", name)
	}
	if names[name] = true; len(names) > maxTemplateVariables {
		return "", "", false, fmt.Errorf("it has more than %d variables", maxTemplateVariables)
	}
	if p, last, err = templateGlobs(sub); err != nil {
		return "", "", false, err
	}
	return "(?P<" + name + ">" + p + ")", rest, last, nil
}

// templateGlobs is the pattern of segments without variables; last says that it
// holds a "**".
func templateGlobs(s string) (p string, last bool, err error) {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], "**"):
			out.WriteString(".*")
			last = true
			i++
		case s[i] == '*':
			out.WriteString("[^/]+")
		case strings.IndexByte("{}", s[i]) >= 0:
			return "", false, fmt.Errorf("%q does not belong in a literal", s[i])
		default:
			out.WriteString(regexp.QuoteMeta(s[i : i+1]))
		}
	}
	return out.String(), last, nil
}

// templateRewrite is a UriTemplateRewriteConfig.
type templateRewrite struct {
	from *matcher.Regexp
	// parts are literal text and, where group is not 0, what a variable matched.
	parts []templatePart
}

type templatePart struct {
	text  string
	group int
}

func newTemplateRewrite(ext *corev3.TypedExtensionConfig, from *matcher.Regexp) (*templateRewrite, error) {
	cfg := new(rewritev3.UriTemplateRewriteConfig)
	if err := ext.GetTypedConfig().UnmarshalTo(cfg); err != nil {
		return nil, fmt.Errorf("%q: only UriTemplateRewriteConfig is supported: %w", ext.GetName(), err)
	}
	if from == nil {
		return nil, errors.New("it needs a path_match_policy with a path_template")
	}
	t := &templateRewrite{from: from}
	rest := cfg.GetPathTemplateRewrite()
	if !strings.HasPrefix(rest, "/") {
		return nil, fmt.Errorf("path_template_rewrite %q does not begin with a slash", rest)
	}
	for rest != "" {
		literal, after, ok := strings.Cut(rest, "{")
		if literal != "" {
			t.parts = append(t.parts, templatePart{text: literal})
		}
		if !ok {
			break
		}
		name, tail, ok := strings.Cut(after, "}")
		group := from.Group(name)
		if !ok || group < 0 {
			return nil, fmt.Errorf("path_template_rewrite: path_template has no variable %q", name)
		}
		t.parts = append(t.parts, templatePart{group: group})
		rest = tail
	}
	return t, nil
}

func (t *templateRewrite) rewrite(path string) (string, bool) {
	m := t.from.Submatches(path)
	if m == nil {
		return "", false
	}
	var out strings.Builder
	for _, p := range t.parts {
		if p.group > 0 {
			out.WriteString(m[p.group])
		} else {
			out.WriteString(p.text)
		}
	}
	return out.String(), true
}

// updateFrequency reads the one retry priority there is.
func updateFrequency(cfg *anypb.Any) (int, error) {
	p := new(prioritiesv3.PreviousPrioritiesConfig)
	if err := cfg.UnmarshalTo(p); err != nil {
		return 0, fmt.Errorf("only previous_priorities is supported: %w", err)
	}
	if p.GetUpdateFrequency() < 1 {
		return 0, errors.New("update_frequency is less than 1")
	}
	return int(p.GetUpdateFrequency()), nil
}
