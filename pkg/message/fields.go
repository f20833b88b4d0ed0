package message

// Field is one field line; the name is in lower case.
type Field struct{ Name, Value string }

// Fields are field lines in their order.
type Fields []Field

// Get is the first value of a name, or "".
func (f Fields) Get(name string) string {
	for i := range f {
		if f[i].Name == name {
			return f[i].Value
		}
	}
	return ""
}

// Lookup is the first value of a name, and whether there is one.
func (f Fields) Lookup(name string) (string, bool) {
	for i := range f {
		if f[i].Name == name {
			return f[i].Value, true
		}
	}
	return "", false
}

// Count is how many lines a name has.
func (f Fields) Count(name string) (n int) {
	for i := range f {
		if f[i].Name == name {
			n++
		}
	}
	return n
}

// Joined is all values of a name, joined by commas as RFC 9110 section 5.3 allows
// and as Envoy matches them, and whether there is one.
func (f Fields) Joined(name string) (string, bool) {
	value, found := "", false
	for i := range f {
		switch {
		case f[i].Name != name:
		case found:
			value += "," + f[i].Value
		default:
			value, found = f[i].Value, true
		}
	}
	return value, found
}

// Add appends a line.
func (f *Fields) Add(name, value string) { *f = append(*f, Field{name, value}) }

// Set leaves one line of a name, where its first one was or at the end.
func (f *Fields) Set(name, value string) {
	for i := range *f {
		if (*f)[i].Name == name {
			(*f)[i].Value = value
			f.delFrom(i+1, name)
			return
		}
	}
	f.Add(name, value)
}

// Del takes all lines of a name away.
func (f *Fields) Del(name string) { f.delFrom(0, name) }

func (f *Fields) delFrom(at int, name string) {
	kept := (*f)[:at]
	for _, line := range (*f)[at:] {
		if line.Name != name {
			kept = append(kept, line)
		}
	}
	*f = kept
}
