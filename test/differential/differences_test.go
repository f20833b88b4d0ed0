package differential

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"
)

// maxDifferences bounds the rows of differences.yaml.
const maxDifferences = 25

// difference is one key in which a case's outcomes differ.
type difference struct{ name, key, envoy, ours string }

// row is a known difference. Its patterns hold for whole strings; an empty one for all.
type row struct {
	ID     string `json:"id"`
	Case   string `json:"case"`
	Key    string `json:"key"`
	Envoy  string `json:"envoy"`
	Ours   string `json:"ours"`
	Effect string `json:"effect"` // on a user
	used   int
	match  [4]*regexp.Regexp
}

// table is differences.yaml.
type table struct {
	once sync.Once
	err  error

	// mu guards below.
	mu   sync.Mutex
	rows []*row
}

var differences table

func (t *table) read() {
	text, err := os.ReadFile("differences.yaml")
	if err == nil {
		err = yaml.UnmarshalStrict(text, &t.rows)
	}
	t.err = err
	for _, r := range t.rows {
		for i, pattern := range []string{r.Case, r.Key, r.Envoy, r.Ours} {
			if pattern == "" {
				pattern = ".*"
			}
			compiled, err := regexp.Compile("(?s)^(?:" + pattern + ")$")
			if err != nil {
				t.err = fmt.Errorf("row %s: %w", r.ID, err)
				return
			}
			r.match[i] = compiled
		}
	}
}

func (t *table) known(d difference) bool {
	t.once.Do(t.read)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		panic(t.err)
	}
	i := slices.IndexFunc(t.rows, func(r *row) bool {
		return r.match[0].MatchString(d.name) && r.match[1].MatchString(d.key) && r.match[2].MatchString(d.envoy) && r.match[3].MatchString(d.ours)
	})
	if i < 0 {
		return false
	}
	t.rows[i].used++
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
		if r.ID == "" || r.Effect == "" || r.Case == "" || r.Key == "" {
			t.Errorf("row %q: id, case, key and effect must be there", r.ID)
		}
		if ids[r.ID] {
			t.Errorf("row %q stands twice", r.ID)
		}
		ids[r.ID] = true
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
	for _, r := range differences.rows {
		fmt.Printf("differential: %s: %d times\n", r.ID, r.used)
		if r.used == 0 && !partial {
			fmt.Printf("differential: row %s of differences.yaml stands for nothing: take it out\n", r.ID)
			ok = false
		}
	}
	return ok
}
