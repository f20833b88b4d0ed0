package h2

import "errors"

// tableSize is what we let a peer keep of our memory for its fields, and what we
// use of its, in bytes: the default of RFC 9113 section 6.5.2.
const tableSize = 4096

// What is wrong with a header block. Each ends the connection: the tables of both
// sides are no longer the same.
var (
	errBlockShort   = errors.New("header block ends within a field")
	errBlockNumber  = errors.New("number too large in a header block")
	errBlockIndex   = errors.New("index of no field in a header block")
	errBlockHuffman = errors.New("string with wrong Huffman code in a header block")
	errBlockSize    = errors.New("table size update that is too large or out of place")
)

// decoder decodes header blocks (RFC 7541). Fields whose strings come from a table
// cost no allocation; all others of a block share one.
type decoder struct {
	table dynamicTable
	limit int // of a list, in bytes

	// What came of the last block.
	fields   []Field
	tooLarge bool
	wrong    bool // a field breaks RFC 9113 section 8.2

	size  int
	text  []byte
	fixes []fix
}

// fix is where a field's strings stand in the text.
type fix struct {
	field      int
	name, from int // the name is text[name:from], if name is not -1
	to         int // the value is text[from:to]
}

func (d *decoder) init(limit int) {
	d.limit = limit
	d.table.max = tableSize
}

// decode reads a whole block.
func (d *decoder) decode(b []byte) error {
	clear(d.fields)
	d.fields, d.text, d.fixes = d.fields[:0], d.text[:0], d.fixes[:0]
	d.size, d.tooLarge, d.wrong = 0, false, false
	var err error
	for first := true; len(b) > 0; {
		switch {
		case b[0]&0x80 != 0:
			b, err = d.indexed(b)
			first = false
		case b[0]&0xe0 == 0x20:
			if !first {
				return errBlockSize // section 4.2: at the beginning only
			}
			b, err = d.resize(b)
		default:
			b, err = d.literal(b)
			first = false
		}
		if err != nil {
			return err
		}
	}
	d.fix()
	if cap(d.text) > maxScratch {
		d.text = nil
	}
	return nil
}

// maxScratch is what a decoder keeps between blocks, in bytes.
const maxScratch = 8 << 10

// fix makes the strings that are in no table.
func (d *decoder) fix() {
	if len(d.fixes) == 0 || d.tooLarge {
		return
	}
	text := string(d.text)
	for _, f := range d.fixes {
		if f.name >= 0 {
			d.fields[f.field].Name = text[f.name:f.from]
		}
		d.fields[f.field].Value = text[f.from:f.to]
	}
}

// fits counts a field.
func (d *decoder) fits(name, value int) bool {
	if d.size += name + value + fieldOverhead; d.size > d.limit {
		d.tooLarge = true
	}
	return !d.tooLarge
}

func (d *decoder) emit(e tableEntry) {
	if d.fits(len(e.Name), len(e.Value)) {
		d.fields = append(d.fields, e.Field)
		d.wrong = d.wrong || e.wrong
	}
}

// entry is the one of an index, in either table.
func (d *decoder) entry(index int) (tableEntry, bool) {
	if index == 0 {
		return tableEntry{}, false
	}
	if index <= len(staticTable) {
		return tableEntry{Field: staticTable[index-1]}, true
	}
	if index -= len(staticTable) + 1; index < d.table.len() {
		return *d.table.at(index), true
	}
	return tableEntry{}, false
}

func (d *decoder) indexed(b []byte) ([]byte, error) {
	index, b, err := number(b, 7)
	if err != nil {
		return nil, err
	}
	e, ok := d.entry(index)
	if !ok {
		return nil, errBlockIndex
	}
	d.emit(e)
	return b, nil
}

func (d *decoder) resize(b []byte) ([]byte, error) {
	size, b, err := number(b, 5)
	if err != nil {
		return nil, err
	}
	if size > tableSize {
		return nil, errBlockSize
	}
	d.table.setMax(size)
	return b, nil
}

// literal reads a field that stands in the block, and keeps it if it is told to.
func (d *decoder) literal(b []byte) ([]byte, error) {
	keep, bits := false, 4
	if b[0]&0x40 != 0 {
		keep, bits = true, 6
	}
	index, b, err := number(b, bits)
	if err != nil {
		return nil, err
	}
	var name tableEntry // the name's, and whether it is wrong
	at := len(d.text)
	from, inText := at, false
	if index > 0 {
		var ok bool
		if name, ok = d.entry(index); !ok {
			return nil, errBlockIndex
		}
		name.wrong = name.wrong && !validName(name.Name)
	} else {
		if b, err = d.string(b); err != nil {
			return nil, err
		}
		name.Name, inText = commonNames[string(d.text[at:])], true
		if name.Name != "" || len(d.text) == at {
			d.text, inText = d.text[:at], false
			name.wrong = name.Name == ""
		} else {
			name.wrong = !validName(d.text[at:])
		}
		from = len(d.text)
	}
	if b, err = d.string(b); err != nil {
		return nil, err
	}
	value := d.text[from:]
	wrong := name.wrong || !validValue(value)
	switch {
	case keep:
		if inText {
			name.Name = string(d.text[at:from])
		}
		e := tableEntry{Field: Field{Name: name.Name, Value: string(value)}, wrong: wrong}
		d.text = d.text[:at]
		d.table.add(e)
		d.emit(e)
	case d.fits(max(len(name.Name), from-at), len(value)):
		f := fix{field: len(d.fields), name: -1, from: from, to: len(d.text)}
		if inText {
			f.name = at
		}
		d.fixes = append(d.fixes, f)
		d.fields = append(d.fields, Field{Name: name.Name})
		d.wrong = d.wrong || wrong
	default:
		d.text = d.text[:at]
	}
	return b, nil
}

// string appends a string to the text.
func (d *decoder) string(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, errBlockShort
	}
	coded := b[0]&0x80 != 0
	n, b, err := number(b, 7)
	if err != nil {
		return nil, err
	}
	if n > len(b) {
		return nil, errBlockShort
	}
	if !coded {
		d.text = append(d.text, b[:n]...)
		return b[n:], nil
	}
	var ok bool
	if d.text, ok = appendHuffman(d.text, b[:n]); !ok {
		return nil, errBlockHuffman
	}
	return b[n:], nil
}

// number reads an integer whose first byte has so many bits for it (RFC 7541
// section 5.1).
func number(b []byte, bits int) (int, []byte, error) {
	if len(b) == 0 {
		return 0, nil, errBlockShort
	}
	most := 1<<bits - 1
	n := int(b[0]) & most
	b = b[1:]
	if n < most {
		return n, b, nil
	}
	for shift := 0; len(b) > 0; shift += 7 {
		if shift > 21 {
			return 0, nil, errBlockNumber
		}
		n += int(b[0]&0x7f) << shift
		more := b[0]&0x80 != 0
		b = b[1:]
		if !more {
			return n, b, nil
		}
	}
	return 0, nil, errBlockShort
}
