package h2

import (
	"hash/maphash"
	"strings"
)

// encoder writes header blocks (RFC 7541). A field enters the table when it is sent
// the second time, so that values that differ each time (request ids, lengths,
// traces) push out nothing. Strings are sent as they are: within a cluster, bytes
// are cheaper than Huffman's code.
type encoder struct {
	table dynamicTable
	added uint32 // entries ever
	// slots find entries by their hash: the number of the entry, from 1.
	slots [256]uint32
	// seen are hashes of fields that were sent and are not in the table.
	seen [64]uint64
	seed maphash.Seed

	// The peer's limit changed: it must be told before the next field.
	resized bool
}

func (e *encoder) init() {
	e.table.max = tableSize
	e.seed = maphash.MakeSeed()
}

// limit takes the peer's SETTINGS_HEADER_TABLE_SIZE.
func (e *encoder) limit(n uint32) {
	size := int(min(n, tableSize))
	if size == e.table.max || size > e.table.max && e.resized {
		return // one that fell and rose again stays low: two updates are more than x/net takes
	}
	e.resized = true
	e.table.setMax(size)
}

// append encodes fields behind dst.
func (e *encoder) append(dst []byte, fields []Field) []byte {
	if e.resized {
		dst = appendNumber(dst, 0x20, 5, e.table.max)
		e.resized = false
	}
	for i := range fields {
		dst = e.field(dst, &fields[i])
	}
	return dst
}

func (e *encoder) field(dst []byte, f *Field) []byte {
	first := staticNames[f.Name]
	for i := first; i > 0 && i <= len(staticTable) && staticTable[i-1].Name == f.Name; i++ {
		if staticTable[i-1].Value == f.Value && f.Value != "" {
			return appendNumber(dst, 0x80, 7, i)
		}
	}
	if secret(f) {
		return appendLiteral(dst, 0x10, 4, first, f)
	}
	hash := maphash.String(e.seed, f.Value)*31 + maphash.String(e.seed, f.Name)
	slot := &e.slots[hash%uint64(len(e.slots))]
	if age := int(e.added - *slot); *slot > 0 && age < e.table.len() && e.table.at(age).Field == *f {
		return appendNumber(dst, 0x80, 7, len(staticTable)+1+age)
	}
	if seen := &e.seen[hash%uint64(len(e.seen))]; *seen != hash || fieldSize(*f) > e.table.max/4 {
		*seen = hash
		return appendLiteral(dst, 0, 4, first, f)
	}
	// The table outlives the message that the strings may stand in.
	e.table.add(tableEntry{Field: Field{Name: strings.Clone(f.Name), Value: strings.Clone(f.Value)}})
	e.added++
	*slot = e.added
	return appendLiteral(dst, 0x40, 6, first, f)
}

// secret fields must not be in a table whose use can be seen from outside (RFC 7541
// section 7.1).
func secret(f *Field) bool {
	switch f.Name {
	case "authorization", "proxy-authorization":
		return true
	case "cookie", "set-cookie":
		return len(f.Value) < 20
	}
	return false
}

// appendLiteral writes a field with the index of its name, or 0.
func appendLiteral(dst []byte, pattern byte, bits, name int, f *Field) []byte {
	dst = appendNumber(dst, pattern, bits, name)
	if name == 0 {
		dst = appendNumber(dst, 0, 7, len(f.Name))
		dst = append(dst, f.Name...)
	}
	dst = appendNumber(dst, 0, 7, len(f.Value))
	return append(dst, f.Value...)
}

func appendNumber(dst []byte, pattern byte, bits, n int) []byte {
	most := 1<<bits - 1
	if n < most {
		return append(dst, pattern|byte(n))
	}
	dst = append(dst, pattern|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}
