package h2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

func TestStaticTableIsTheRFCs(t *testing.T) {
	d := hpack.NewDecoder(tableSize, nil)
	for i, f := range staticTable {
		got, err := d.DecodeFull([]byte{0x80 | byte(i+1)})
		if err != nil || len(got) != 1 || got[0].Name != f.Name || got[0].Value != f.Value {
			t.Errorf("index %d: %v, %v; the RFC has %v", i+1, f, err, got)
		}
	}
}

// randomFields has values that repeat and values that do not.
func randomFields(r *rand.Rand) []Field {
	out := []Field{{Name: ":method", Value: "GET"}, {Name: ":path", Value: fmt.Sprint("/", r.IntN(20))}}
	for range r.IntN(12) {
		f := Field{Name: fmt.Sprint("x-", r.IntN(30)), Value: fmt.Sprint(r.IntN(5))}
		switch r.IntN(6) {
		case 0:
			f.Value = strings.Repeat("v", r.IntN(3000))
		case 1:
			f.Value = fmt.Sprint(r.Uint64())
		case 2:
			f.Name = staticTable[14+r.IntN(40)].Name
		case 3:
			f = Field{Name: "x-request-id", Value: "\u00e9\u00ff"}
		}
		out = append(out, f)
	}
	return out
}

// What we encode, x/net's decoder reads, while the table's size changes.
func TestEncoderAgainstXNet(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var e encoder
	e.init()
	d := hpack.NewDecoder(tableSize, nil)
	for i := range 3000 {
		if i%100 == 99 {
			for range 1 + r.IntN(2) {
				e.limit(uint32(r.IntN(5000)))
			}
		}
		want := randomFields(r)
		got, err := d.DecodeFull(e.append(nil, want))
		if err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		var fields []Field
		for _, f := range got {
			fields = append(fields, Field{Name: f.Name, Value: f.Value})
		}
		if !slices.Equal(fields, want) {
			t.Fatalf("block %d: %v, want %v", i, fields, want)
		}
	}
}

// What x/net encodes, we decode.
func TestDecoderAgainstXNet(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	var d decoder
	d.init(1 << 20)
	for i := range 3000 {
		b.Reset()
		if i%100 == 99 {
			e.SetMaxDynamicTableSize(uint32(r.IntN(tableSize)))
		}
		want := randomFields(r)
		for _, f := range want {
			_ = e.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value, Sensitive: r.IntN(5) == 0})
		}
		if err := d.decode(b.Bytes()); err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		if !slices.Equal(d.fields, want) || d.wrong || d.tooLarge {
			t.Fatalf("block %d: %v, want %v", i, d.fields, want)
		}
	}
}

// A repeated field is an index; one that changes does not fill the table.
func TestEncoderKeepsWhatRepeats(t *testing.T) {
	var e encoder
	e.init()
	fields := []Field{{Name: "x-user", Value: "alice"}, {Name: "x-request-id", Value: ""}}
	for i := range 1000 {
		fields[1].Value = fmt.Sprint("id", i)
		b := e.append(nil, fields)
		if i > 2 && b[0] != 0x80|62 {
			t.Fatalf("block %d begins with %#x, want an index", i, b[0])
		}
	}
	if n := e.table.len(); n != 1 {
		t.Errorf("%d entries, want the one that repeats", n)
	}
	if b := e.append(nil, []Field{{Name: "authorization", Value: "s"}}); b[0]&0xf0 != 0x10 {
		t.Errorf("a credential begins with %#x, want never to be indexed", b[0])
	}
}

func TestDecoderRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"index 0":                          {0x80},
		"index beyond the tables":          {0xff, 0x10},
		"name index beyond the tables":     {0x7f, 0x10, 1, 'a'},
		"number too large":                 {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"number that ends early":           {0xff, 0xff},
		"string that ends early":           {0x40, 5, 'a'},
		"value that is not there":          {0x40, 1, 'a'},
		"size update over the limit":       {0x3f, 0xe2, 0x1f},
		"size update after a field":        {0x82, 0x20},
		"Huffman padding of 8 bits":        {0x40, 0x82, 0x1f, 0xff, 1, 'a'},
		"Huffman padding that is not ones": {0x40, 0x81, 0x18, 1, 'a'},
		"Huffman's end of string":          {0x40, 0x84, 0xff, 0xff, 0xff, 0xff, 1, 'a'},
	} {
		var d decoder
		d.init(1 << 16)
		if err := d.decode(b); err == nil {
			t.Errorf("%s: taken as %v", name, d.fields)
		}
	}
}

// A list over the limit is told, and the tables stay the same.
func TestDecoderLimit(t *testing.T) {
	var d decoder
	d.init(100)
	var e encoder
	e.init()
	small := []Field{{Name: "x-kept", Value: "v"}}
	large := []Field{{Name: "x-kept", Value: "v"}, {Name: "x-large", Value: strings.Repeat("v", 500)}, {Name: "after", Value: "v"}}
	for range 4 {
		if err := d.decode(e.append(nil, large)); err != nil || !d.tooLarge {
			t.Fatalf("too large: %v, %v", d.tooLarge, err)
		}
		if err := d.decode(e.append(nil, small)); err != nil || d.tooLarge || !slices.Equal(d.fields, small) {
			t.Fatalf("after it: %v, %v", d.fields, err)
		}
	}
}

// A block of few allocations: literals share one, the table's fields have none.
func TestDecoderAllocations(t *testing.T) {
	var d decoder
	d.init(1 << 16)
	var e encoder
	e.init()
	fields := []Field{{Name: ":method", Value: "GET"}, {Name: "x-user", Value: "alice"}, {Name: "accept", Value: "*/*"}}
	for range 5 {
		if err := d.decode(e.append(nil, fields)); err != nil {
			t.Fatal(err)
		}
	}
	indexed := e.append(nil, fields)
	literal := appendLiteral(appendLiteral(nil, 0, 4, 0, &Field{Name: "x-a", Value: "1"}), 0, 4, 0, &Field{Name: "x-b", Value: "2"})
	for want, b := range map[float64][]byte{0: indexed, 1: literal} {
		_ = d.decode(b)
		got := 1e9
		for range 10 { // what other tests left running is counted as well
			got = min(got, testing.AllocsPerRun(100, func() { _ = d.decode(b) }))
		}
		if got > want {
			t.Errorf("%v allocations, want %v", got, want)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	var e encoder
	e.init()
	f.Add(e.append(nil, []Field{{Name: ":method", Value: "GET"}, {Name: "x-a", Value: "b"}}), uint16(1000))
	f.Add([]byte{0x40, 0x81, 0x1f, 1, 'a', 0xbe}, uint16(50))
	f.Add([]byte{0x20, 0x3f, 0xe1, 0x1f, 0x82}, uint16(50))
	f.Fuzz(func(t *testing.T, b []byte, limit uint16) {
		var d decoder
		d.init(int(limit))
		var want []Field
		x := hpack.NewDecoder(tableSize, func(f hpack.HeaderField) { want = append(want, Field{Name: f.Name, Value: f.Value}) })
		_, xerr := x.Write(b)
		if xerr == nil {
			xerr = x.Close()
		}
		err := d.decode(b)
		if err == nil && xerr != nil {
			t.Fatalf("we take what x/net refuses with %v", xerr)
		}
		if err == nil && !d.tooLarge && !slices.Equal(d.fields, want) {
			t.Fatalf("%v, x/net has %v", d.fields, want)
		}
		for _, f := range d.fields {
			if err == nil && !d.tooLarge && !d.wrong && (!validName(f.Name) || !validValue(f.Value)) {
				t.Fatalf("%q passed as valid", f)
			}
		}
	})
}
