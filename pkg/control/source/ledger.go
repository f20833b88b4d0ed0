package source

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// File is one file of YAML.
type File struct {
	// Name is used in messages.
	Name string
	Data []byte
}

// Parse decodes files once, with no memory of earlier states. An object in
// derived takes the place of one of the same name in config.
func Parse(config, derived []File) *Objects {
	var l ledger
	for _, f := range config {
		l.put(f.Name, false, f.Data)
	}
	for _, f := range derived {
		l.put(f.Name, true, f.Data)
	}
	return l.objects()
}

// entry is one file with what is in force of it.
type entry struct {
	name    string
	derived bool
	now     *parsed // of the text as it is
	good    *parsed // of the last text without errors, or nil
	leaving bool    // missing or empty, perhaps for the moment of a save or a rename
}

var nothing parsed

// taken is what is in force: the last good state, else as much as could be read.
func (e *entry) taken() *parsed {
	switch {
	case e.good != nil:
		return e.good
	case e.now != nil:
		return e.now
	}
	return &nothing
}

// problems are what is wrong in the text as it is.
func (e *entry) problems() (out []Problem) {
	if e.now == nil {
		return nil
	}
	for _, p := range e.now.problems {
		if e.good != nil && e.good != e.now && p.Severity == Error && !p.NotServed {
			p.Message += " (what the file held before stays in force)"
		}
		out = append(out, p)
	}
	return out
}

// rank puts derived files first, whose objects win, and leaving ones last.
func (e *entry) rank() int {
	switch {
	case e.leaving:
		return 2
	case e.derived:
		return 0
	}
	return 1
}

func (e *entry) compare(o *entry) int {
	return cmp.Or(cmp.Compare(e.rank(), o.rank()), cmp.Compare(e.name, o.name))
}

// claim is an object in a file.
type claim struct {
	*entry
	object object
}

// ledger remembers the files between readings, and makes each snapshot out of the
// one before: what a file costs that is read again is what is in it.
type ledger struct {
	entries map[entryKey]*entry
	// claims are the objects of all files.
	claims map[Ref][]claim
	// chosen is what is in force of each object, twice what is wrong because
	// several files have it.
	chosen map[Ref]object
	twice  map[Ref][]Problem

	// touched may have changed since the last snapshot; so may what files say
	// beside objects, if aside.
	touched map[Ref]bool
	aside   bool
	last    *Objects // or nil: none yet
}

type entryKey struct {
	name    string
	derived bool
}

func (l *ledger) entry(name string, derived bool) *entry {
	if l.entries == nil {
		l.entries, l.claims, l.chosen = map[entryKey]*entry{}, map[Ref][]claim{}, map[Ref]object{}
		l.twice, l.touched = map[Ref][]Problem{}, map[Ref]bool{}
	}
	key := entryKey{name, derived}
	if l.entries[key] == nil {
		l.entries[key] = &entry{name: name, derived: derived}
	}
	return l.entries[key]
}

// change makes a file another, and notes what depends on it.
func (l *ledger) change(e *entry, how func()) {
	before, said := e.taken(), e.problems()
	how()
	now := e.taken()
	if !slices.Equal(said, e.problems()) || before != now && len(before.refused)+len(now.refused)+len(before.mesh)+len(now.mesh) > 0 {
		l.aside = true
	}
	if before == now {
		return
	}
	stays := make(map[object]bool, len(now.objects))
	for _, o := range now.objects {
		stays[o] = true
	}
	for _, o := range before.objects {
		if !stays[o] {
			l.touched[o.ref] = true
		}
		l.withdraw(e, o.ref)
		delete(stays, o)
	}
	for o := range stays { // what was not there
		l.touched[o.ref] = true
	}
	for _, o := range now.objects {
		l.claims[o.ref] = append(l.claims[o.ref], claim{e, o})
	}
}

func (l *ledger) withdraw(e *entry, ref Ref) {
	left := slices.DeleteFunc(l.claims[ref], func(c claim) bool { return c.entry == e })
	if len(left) == 0 {
		delete(l.claims, ref)
		return
	}
	l.claims[ref] = left
}

func (l *ledger) put(name string, derived bool, data []byte) {
	e := l.entry(name, derived)
	l.leave(e, false)
	l.change(e, func() {
		e.now = parseFile(name, data)
		if !e.now.broken() {
			e.good = e.now
		}
	})
}

// unreadable notes that a file is there and cannot be read.
func (l *ledger) unreadable(name string, derived bool, err error) {
	e := l.entry(name, derived)
	l.change(e, func() {
		e.now = &parsed{}
		e.now.fail(Position{name, 1}, Ref{}, "", err.Error())
	})
}

func (l *ledger) drop(name string, derived bool) {
	if e := l.entries[entryKey{name, derived}]; e != nil {
		l.change(e, func() { e.now, e.good = nil, nil })
		delete(l.entries, entryKey{name, derived})
	}
}

// leaving notes that a file is missing or empty. What it held stays, unless
// another file has it now.
func (l *ledger) leaving(name string, derived, leaving bool) {
	if e := l.entries[entryKey{name, derived}]; e != nil {
		l.leave(e, leaving)
	}
}

func (l *ledger) leave(e *entry, leaving bool) {
	if e.leaving == leaving {
		return
	}
	e.leaving = leaving
	for _, o := range e.taken().objects {
		l.touched[o.ref] = true
	}
	l.aside = l.aside || len(e.taken().mesh) > 0
}

// rivals are the other files that have objects of a file.
func (l *ledger) rivals(key entryKey) (out []entryKey) {
	e := l.entries[key]
	if e == nil {
		return nil
	}
	for _, o := range e.taken().objects {
		for _, c := range l.claims[o.ref] {
			if c.entry != e {
				out = append(out, entryKey{c.name, c.derived})
			}
		}
	}
	return out
}

// many is how many objects are better sorted than put in their places.
const many = 256

// objects makes a snapshot of all files. What has not changed it shares with the
// last one.
func (l *ledger) objects() *Objects {
	type move struct{ before, now metav1.Object }
	var moves []move
	again := l.aside || l.last == nil // what is said of files has changed
	for ref := range l.touched {
		before, said := l.chosen[ref], l.twice[ref]
		l.choose(ref)
		again = again || !slices.Equal(said, l.twice[ref])
		if now := l.chosen[ref]; before.value != now.value {
			moves = append(moves, move{before.value, now.value})
		}
	}
	o := &Objects{}
	if l.last != nil {
		*o = *l.last
	}
	if l.last == nil || len(moves) > many {
		o.gather(l.chosen)
	} else {
		lists := o.lists()
		for _, m := range moves {
			of := m.now
			if of == nil {
				of = m.before
			}
			lists[reflect.TypeOf(of)].put(m.before, m.now)
		}
	}
	if again {
		l.sayAside(o)
	}
	clear(l.touched)
	l.aside, l.last = false, o
	return o
}

// choose picks one object of a name: a derived one, else the one that was there
// before, else the first by file.
func (l *ledger) choose(ref Ref) {
	all := slices.Clone(l.claims[ref])
	slices.SortStableFunc(all, func(a, b claim) int { return a.compare(b.entry) })
	owner := l.chosen[ref].pos.File
	delete(l.chosen, ref)
	delete(l.twice, ref)
	var winner object
	for i, c := range all {
		switch {
		case i == 0:
			winner = c.object
			continue
		case all[0].derived && !c.derived, c.leaving:
			continue
		}
		loser := c.object
		if owner == c.object.pos.File && winner.pos.File != owner {
			winner, loser = loser, winner
		}
		l.twice[ref] = append(l.twice[ref], Problem{Position: loser.pos, Severity: Error, Ref: ref,
			Message: fmt.Sprintf("the same object is in %s, and that one is used: remove one of the two", winner.pos)})
	}
	if len(all) > 0 {
		l.chosen[ref] = winner
	}
}

// sayAside fills in what files say beside objects: the mesh's configuration, and
// what is wrong.
func (l *ledger) sayAside(o *Objects) {
	o.Mesh, o.Settings, o.Refused, o.Problems = DefaultMesh(), DefaultSettings(), nil, nil
	var used *meshConfig
	var meshes []*entry
	for _, e := range l.entries {
		o.Refused = append(o.Refused, e.taken().refused...)
		o.Problems = append(o.Problems, e.problems()...)
		if len(e.taken().mesh) > 0 {
			meshes = append(meshes, e)
		}
	}
	for _, said := range l.twice {
		o.Problems = append(o.Problems, said...)
	}
	slices.SortFunc(meshes, (*entry).compare)
	for _, e := range meshes {
		for i := range e.taken().mesh {
			m := &e.taken().mesh[i]
			switch {
			case used == nil:
				used, o.Mesh, o.Settings = m, m.mesh, m.settings
			case !e.leaving:
				o.Problems = append(o.Problems, Problem{Position: m.pos, Severity: Error, Ref: m.ref,
					Message: fmt.Sprintf("the same object is in %s, and that one is used: remove one of the two", used.pos)})
			}
		}
	}
	SortAside(o)
}

// SortAside puts what is wrong in its order.
func SortAside(o *Objects) {
	slices.SortFunc(o.Refused, func(a, b Refused) int {
		return cmp.Or(a.Ref.compare(b.Ref), cmp.Compare(a.Position.File, b.Position.File), cmp.Compare(a.Position.Line, b.Position.Line))
	})
	slices.SortFunc(o.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), a.Ref.compare(b.Ref), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
}
