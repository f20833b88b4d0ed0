package differential

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"
)

// maxDifferences bounds the rows of differences.yaml.
const maxDifferences = 25

// difference is one key in which a case's outcomes differ.
type difference struct{ name, key, envoy, ours string }

// row is a known difference. A case is of it if its whole name is in Inputs after "Test/",
// or matches Case; a key in which the outcomes differ if one of Values holds for it.
type row struct {
	ID     string   `json:"id"`
	Case   string   `json:"case"` // a regular expression, for the whole
	Test   string   `json:"test"` // of Inputs
	Inputs []string `json:"inputs"`
	// Values are regular expressions for the whole of a key, of Envoy's value and of ours.
	Values [][3]string `json:"values"`
	Effect string      `json:"effect"` // on a user
	used   int
	named  *regexp.Regexp // or nil
	values [][3]*regexp.Regexp
}

func (r *row) compile() (err error) {
	whole := func(pattern string) *regexp.Regexp {
		compiled, bad := regexp.Compile("(?s)^(?:" + pattern + ")$")
		if bad != nil {
			err = fmt.Errorf("row %s: %w", r.ID, bad)
		}
		return compiled
	}
	if r.Case != "" {
		r.named = whole(r.Case)
	}
	for _, v := range r.Values {
		r.values = append(r.values, [3]*regexp.Regexp{whole(v[0]), whole(v[1]), whole(v[2])})
	}
	return err
}

// explains tells whether the row stands for a difference.
func (r *row) explains(d difference) bool { return r.isOf(d.name) && r.says(d.key, d.envoy, d.ours) }

// isOf tells whether the row is about a case.
func (r *row) isOf(name string) bool {
	input, ofTest := strings.CutPrefix(name, r.Test+"/")
	return ofTest && slices.Contains(r.Inputs, input) || r.named != nil && r.named.MatchString(name)
}

// says tells whether a key may have such values, in the cases that it is about.
func (r *row) says(key, envoy, ours string) bool {
	return slices.ContainsFunc(r.values, func(v [3]*regexp.Regexp) bool {
		return v[0].MatchString(key) && v[1].MatchString(envoy) && v[2].MatchString(ours)
	})
}

// table is differences.yaml.
type table struct {
	once sync.Once
	err  error

	// mu guards below.
	mu   sync.Mutex
	rows []*row
	met  []string // the differences that rows stood for
}

var differences table

func (t *table) read() {
	text, err := os.ReadFile("differences.yaml")
	if err == nil {
		err = yaml.UnmarshalStrict(text, &t.rows)
	}
	t.err = err
	for _, r := range t.rows {
		if err := r.compile(); err != nil && t.err == nil {
			t.err = err
		}
	}
}

// about tells whether one of some rows is about a case: statistics are compared before such
// cases are sent.
func (t *table) about(name string, rows ...string) bool {
	t.once.Do(t.read)
	return slices.ContainsFunc(t.rows, func(r *row) bool { return slices.Contains(rows, r.ID) && r.isOf(name) })
}

func (t *table) known(d difference) bool {
	t.once.Do(t.read)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		panic(t.err)
	}
	i := slices.IndexFunc(t.rows, func(r *row) bool { return r.explains(d) })
	if i < 0 {
		return false
	}
	t.rows[i].used++
	t.met = append(t.met, fmt.Sprintf("%s: %s: %s: envoy %q, ours %q", t.rows[i].ID, d.name, d.key, d.envoy, d.ours))
	return true
}

// Every row is short of nothing, and there are not too many.
func TestDifferencesAreExplained(t *testing.T) {
	differences.once.Do(differences.read)
	if differences.err != nil {
		t.Fatal(differences.err)
	}
	if n := len(differences.rows); n > maxDifferences {
		t.Errorf("%d rows; at most %d", n, maxDifferences)
	}
	ids := map[string]bool{}
	for _, r := range differences.rows {
		if r.ID == "" || r.Effect == "" || r.Case == "" && len(r.Inputs) == 0 || len(r.Values) == 0 {
			t.Errorf("row %q: id, effect, values, and case or inputs must be there", r.ID)
		}
		if ids[r.ID] {
			t.Errorf("row %q stands twice", r.ID)
		}
		ids[r.ID] = true
	}
}

// No row can hide an answer where Envoy refuses, or a try where Envoy makes none.
func TestDifferencesHideNoAnswer(t *testing.T) {
	differences.once.Do(differences.read)
	for _, r := range differences.rows {
		for refusal := 400; refusal < 600; refusal++ {
			for _, key := range []string{"status", "log code"} {
				for _, answer := range []int{200, 201, 204, 301, 302, 304} {
					if r.says(key, fmt.Sprint(refusal), fmt.Sprint(answer)) {
						t.Fatalf("row %q: %s may be %d where Envoy's is %d", r.ID, key, answer, refusal)
					}
				}
			}
		}
		if r.says("tries", "0", "1") || r.says("tries", "0", "2") {
			t.Errorf("row %q: a request may reach a server that Envoy does not send", r.ID)
		}
		if r.says("body", "secret", "") && r.says("body", "", "secret") {
			t.Errorf("row %q: bodies may be anything", r.ID)
		}
	}
}

// tally is how many requests each test compared.
var tally = struct {
	mu sync.Mutex
	of map[string]int
}{of: map[string]int{}}

func count(name string, n int) {
	tally.mu.Lock()
	defer tally.mu.Unlock()
	tally.of[name] += n
}

// report prints the tally and the rows that were met with; it is false where a row was
// met with by nothing although all tests ran.
func report() bool {
	total := 0
	for _, n := range tally.of {
		total += n
	}
	fmt.Printf("differential: %d requests compared in %d tests\n", total, len(tally.of))
	ok := true
	if keep := os.Getenv("DIFFERENTIAL_KEEP"); keep != "" {
		if err := os.WriteFile(filepath.Join(keep, "differences.txt"), []byte(strings.Join(differences.met, "\n")+"\n"), 0o600); err != nil {
			fmt.Println("differential:", err)
		}
	}
	for _, r := range differences.rows {
		fmt.Printf("differential: %s: %d times\n", r.ID, r.used)
		if r.used == 0 && !partial {
			fmt.Printf("differential: row %s of differences.yaml stands for nothing: take it out\n", r.ID)
			ok = false
		}
	}
	return ok
}
