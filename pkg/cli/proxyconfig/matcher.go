package proxyconfig

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
)

// chosenBy says how a listener comes to a chain: by its matcher, or by the chain's own
// match where it has none.
func chosenBy(l, chain value) []string {
	tree, ok := document.At(l, "filter_chain_matcher").(value)
	if !ok {
		return []string{chainMatch(document.At(chain, "filter_chain_match"))}
	}
	name := document.Text(chain, "name")
	if document.Text(tree, "on_no_match", "action", "name") == name {
		return []string{"UNMATCHED"}
	}
	if next, ok := document.At(tree, "on_no_match", "matcher").(value); ok {
		tree = next
	}
	if found := paths(tree, name); len(found) > 0 {
		return found
	}
	return []string{"NONE"}
}

// paths are the ways through a matcher that end at an action of that name.
func paths(tree value, name string) (out []string) {
	input := document.Text(tree, "matcher_tree", "input", "name")
	branches := map[string]any{}
	for key, sign := range map[string]string{"exact_match_map": "=", "prefix_match_map": "^"} {
		m, _ := document.At(tree, "matcher_tree", key, "map").(value)
		for k, v := range m {
			branches[input+sign+k] = v
		}
	}
	for _, m := range document.List(tree, "matcher_tree", "custom_match", "typed_config", "range_matchers") {
		for _, r := range document.List(m, "ranges") {
			cidr := document.Text(r, "address_prefix")
			if bits := number(r, "prefix_len"); bits != 32 && bits != 128 {
				cidr += fmt.Sprintf("/%d", bits)
			}
			branches[input+"="+cidr] = document.At(m, "on_match")
		}
	}
	for _, k := range slices.Sorted(maps.Keys(branches)) {
		out = append(out, follow(k, branches[k], name)...)
	}
	return append(out, follow("ANY", document.At(tree, "on_no_match"), name)...)
}

func follow(by string, to any, name string) (out []string) {
	if document.Text(to, "action", "name") == name {
		return []string{by}
	}
	next, ok := document.At(to, "matcher").(value)
	if !ok {
		return nil
	}
	for _, p := range paths(next, name) {
		out = append(out, strings.Join([]string{by, p}, " -> "))
	}
	return out
}
