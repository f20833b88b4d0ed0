package proxyconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
)

type value = document.Value

// Dump is a configuration dump.
type Dump struct{ sections []value }

// Read decodes what /config_dump answers.
func Read(raw []byte) (*Dump, error) {
	var all struct{ Configs []value }
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("this is not a configuration dump: %w", err)
	}
	if len(all.Configs) == 0 {
		return nil, errors.New("this is not a configuration dump of a proxy: it has no configs")
	}
	return &Dump{all.Configs}, nil
}

// entries are those of lists of a section, such as ClustersConfigDump.
func (d *Dump) entries(section string, lists ...string) (out []value) {
	for _, s := range d.sections {
		if !strings.HasSuffix(document.Text(s, "@type"), "."+section) {
			continue
		}
		for _, name := range lists {
			for _, e := range document.List(s, name) {
				if entry, ok := e.(value); ok {
					out = append(out, entry)
				}
			}
		}
	}
	return out
}

// inner are what lies at a path of each entry.
func inner(entries []value, path ...string) (out []value) {
	for _, e := range entries {
		if v, ok := document.At(e, path...).(value); ok {
			out = append(out, v)
		}
	}
	return out
}

func number(v any, path ...string) uint32 {
	n, _ := document.At(v, path...).(float64)
	return uint32(n)
}

// About keeps what concerns services, by host name, for who asks about a workload that
// has no proxy of its own: clusters and endpoints of the hosts, and routes and listeners'
// chains that name them.
func (d *Dump) About(hosts []string) *Dump {
	concerns := func(e any) bool {
		raw, err := json.Marshal(e)
		return err == nil && slices.ContainsFunc(hosts, func(h string) bool { return strings.Contains(string(raw), h) })
	}
	out := &Dump{}
	for _, s := range d.sections {
		kept := value{}
		for key, v := range s {
			entries, ok := v.([]any)
			if !ok || strings.HasSuffix(key, "_listeners") || strings.HasSuffix(key, "_secrets") {
				kept[key] = v
				continue
			}
			kept[key] = slices.DeleteFunc(slices.Clone(entries), func(e any) bool { return !concerns(e) })
		}
		out.sections = append(out.sections, kept)
	}
	return out
}
