package source

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/testing/protocmp"
)

// reference makes snapshots of a ledger's files from nothing.
type reference struct{ owner map[Ref]string }

func (r *reference) objects(l *ledger) *Objects {
	o := &Objects{Mesh: DefaultMesh(), Settings: DefaultSettings()}
	all := slices.SortedFunc(maps.Values(l.entries), func(a, b *entry) int { return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.name, b.name)) })
	chosen, derived := map[Ref]object{}, map[Ref]bool{}
	var mesh *meshConfig
	same := "the same object is in %s, and that one is used: remove one of the two"
	for _, e := range all {
		for _, obj := range e.taken().objects {
			first, twice := chosen[obj.ref]
			if !twice {
				chosen[obj.ref], derived[obj.ref] = obj, e.derived
				continue
			}
			if derived[obj.ref] && !e.derived || e.leaving {
				continue
			}
			winner, loser := first, obj
			if r.owner[obj.ref] == obj.pos.File && first.pos.File != obj.pos.File {
				winner, loser = obj, first
				chosen[obj.ref] = winner
			}
			o.Problems = append(o.Problems, Problem{Position: loser.pos, Severity: Error, Ref: loser.ref, Message: fmt.Sprintf(same, winner.pos)})
		}
		for i := range e.taken().mesh {
			m := &e.taken().mesh[i]
			if mesh == nil {
				mesh, o.Mesh, o.Settings = m, m.mesh, m.settings
			} else if !e.leaving {
				o.Problems = append(o.Problems, Problem{Position: m.pos, Severity: Error, Ref: m.ref, Message: fmt.Sprintf(same, mesh.pos)})
			}
		}
		o.Refused, o.Problems = append(o.Refused, e.taken().refused...), append(o.Problems, e.problems()...)
	}
	r.owner = map[Ref]string{}
	for ref, obj := range chosen {
		r.owner[ref] = obj.pos.File
	}
	o.gather(chosen)
	slices.SortFunc(o.Refused, func(a, b Refused) int {
		return cmp.Or(a.Ref.compare(b.Ref), cmp.Compare(a.Position.File, b.Position.File), cmp.Compare(a.Position.Line, b.Position.Line))
	})
	slices.SortFunc(o.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), a.Ref.compare(b.Ref), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return o
}

var documents = []string{
	"{apiVersion: v1, kind: Service, metadata: {name: %c}, spec: {clusterIP: 10.0.0.%d, ports: [{port: 80}]}}\n",
	"{apiVersion: v1, kind: Pod, metadata: {name: %c}, status: {podIP: 10.1.0.%d}}\n",
	"{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: %c}, spec: {hosts: [h%d]}}\n",
	"{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: %c}, spec: {hostnames: [h%d.example.com]}}\n",
	"{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: %c}, spec: {host: h%d}}\n",
	"{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: %c}, spec: {selector: {matchLabels: {v: v%d}}}}\n",
	"{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: %c}, spec: {wrong: v%d}}\n",
	"{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'trustDomain: %c.example%d'}}\n",
	"{apiVersion: v1, kind: Nonsense, metadata: {name: %c, resourceVersion: '%d'}}\n",
}

// What is made of the files that changed is what would be made of all of them, over
// thousands of edits: files written, broken, emptied, moved and removed, with objects
// that others have too.
func TestSnapshotsAreThoseOfAllFiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 6 {
		var l ledger
		var ref reference
		l.entry("", false)
		l.drop("", false)
		for step := range 250 {
			file, derived := fmt.Sprintf("%c.yaml", 'a'+rune(r.IntN(6))), r.IntN(4) == 0
			switch what := r.IntN(10); {
			case what < 6:
				var text string
				for range r.IntN(4) {
					text += "---\n" + fmt.Sprintf(documents[r.IntN(len(documents))], 'a'+rune(r.IntN(4)), 1+r.IntN(3))
				}
				l.put(file, derived, []byte(text))
			case what < 7:
				l.drop(file, derived)
			case what < 8:
				l.unreadable(file, derived, errors.New("no"))
			default:
				l.leaving(file, derived, r.IntN(2) == 0)
			}
			if r.IntN(3) == 0 {
				continue // several changes make one snapshot
			}
			before := l.last
			want, got := ref.objects(&l), l.objects()
			if diff := gocmp.Diff(want, got, protocmp.Transform(), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("step %d (-want +got):\n%s", step, diff)
			}
			if before != nil && len(got.Services) > 0 && slices.Equal(before.Services, got.Services) && &before.Services[0] != &got.Services[0] {
				t.Fatalf("step %d: services are the same in a slice of their own", step)
			}
		}
	}
}

// A file that is read by its name alone is taken as a scan of all files would.
func TestReadByName(t *testing.T) {
	dir := t.TempDir()
	tr := tree{roots: []root{{dir: dir}}}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a := write("a.yaml", serviceText("a", "10.0.0.1"))
	if _, err := tr.scan(0); err != nil {
		t.Fatal(err)
	}
	tr.ledger.objects()
	z := filepath.Join(dir, "z.yaml")
	if err := os.Rename(a, z); err != nil {
		t.Fatal(err)
	}
	// Of a rename only the new name is known yet.
	if r := tr.read([]string{z}, time.Hour); !r.changed || !r.pending {
		t.Errorf("%+v", r)
	}
	if o := tr.ledger.objects(); len(o.Services) != 1 || len(o.Problems) != 0 {
		t.Errorf("%d services, %v", len(o.Services), lines(o))
	}
	if r := tr.read(nil, 0); !r.changed || len(tr.files) != 1 || len(tr.hidden) != 0 {
		t.Errorf("%+v, %d files", r, len(tr.files))
	}
	// Hidden files and others are none of ours.
	if r := tr.read([]string{write(".b.yaml", serviceText("b", "10.0.0.2")), write("c.txt", serviceText("c", "10.0.0.3")), "/elsewhere/d.yaml"}, 0); r.changed {
		t.Errorf("%+v", r)
	}
}
