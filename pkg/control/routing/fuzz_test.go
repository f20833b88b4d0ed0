package routing

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

const mutations = 100

// FuzzRoutes holds that whatever source lets through is translated into routes
// that Envoy takes, and that what is the same is translated the same from before.
func FuzzRoutes(f *testing.F) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, in := range inputs {
		text, err := os.ReadFile(in)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	around := base(f)
	f.Fuzz(func(t *testing.T, text []byte) { translated(t, around, text) })
}

func translated(t *testing.T, around, text []byte) {
	out, err := translate.Translate(source.Parse([]source.File{{Name: "base.yaml", Data: around}, {Name: "in.yaml", Data: text}}, nil), translate.Options{ClusterID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	first := New(out.Model, nil)
	got := render(t, first)
	if again := render(t, New(out.Model, first)); string(again) != string(got) {
		t.Errorf("translated from before it differs:\n%s\n%s", got, again)
	}
}

// words are put in the place of others by TestMutations.
var words = []string{
	`""`, "0", "-1", "1", "65536", "4294967295", "2147483647", "x", `"*"`, `"%"`, `"%REQ%"`, `"a b"`, `"([a"`, `".{1000}"`, "/", "//", "/a?b", `"\\9"`, "Exact", "PathPrefix",
	"RegularExpression", "exact", "prefix", "regex", "1ms", "0s", "-5s", "9999h", "reviews", "other", "default", "identity", `"cookie=a;ttl=1s"`, `":path"`, "host", "null", "{}", "[]",
	"weight", "port", "name", "true", "200", "99", "600",
}

var token = regexp.MustCompile(`[^\s{}\[\],:]+`)

// Objects with values in them that nobody meant are refused, or translated into
// routes that Envoy takes.
func TestMutations(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	around := base(t)
	for i := range mutations {
		text := mutant(t, random, inputs[i%len(inputs)])
		if translated(t, around, text); t.Failed() {
			t.Fatalf("%s", text)
		}
	}
}

// mutant is a text with one to three words exchanged.
func mutant(t *testing.T, random *rand.Rand, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for range 1 + random.IntN(3) {
		at := token.FindAllIndex(text, -1)
		one := at[random.IntN(len(at))]
		text = slices.Concat(text[:one[0]], []byte(words[random.IntN(len(words))]), text[one[1]:])
	}
	return text
}
