package oracle

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

// ignored is one entry of ignore.yaml: differences that are meant.
type ignored struct {
	// Case, Resource and Path are globs, * for any text.
	Case     string `json:"case"`
	Resource string `json:"resource"`
	Path     string `json:"path"`
	Reason   string `json:"reason"`

	match [3]*regexp.Regexp
	used  int
}

func readIgnored(file string) ([]*ignored, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var entries []*ignored
	if err := yaml.UnmarshalStrict(data, &entries); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for i, e := range entries {
		if e.Case == "" || e.Resource == "" || strings.TrimSpace(e.Reason) == "" {
			return nil, fmt.Errorf("%s: entry %d needs case, resource and reason", file, i)
		}
		for j, glob := range []string{e.Case, e.Resource, e.Path} {
			e.match[j] = regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(glob), `\*`, ".*") + "$")
		}
	}
	return entries, nil
}

func (e *ignored) covers(d difference) bool {
	return e.match[0].MatchString(d.name) && e.match[1].MatchString(d.resource) && e.match[2].MatchString(d.path)
}
