package rules

import (
	"cmp"
	"fmt"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

// count bounds the number of items or pairs; zero is no bound.
type count struct{ min, max uint64 }

func (c count) broken(n int) string {
	switch {
	case uint64(n) < c.min && n == 0:
		return "must not be empty"
	case uint64(n) < c.min:
		return fmt.Sprintf("must have %d items or more, and has %d", c.min, n)
	case c.max > 0 && uint64(n) > c.max:
		return fmt.Sprintf("must have %d items at most, and has %d", c.max, n)
	}
	return ""
}

// bounds are those of a number or a duration.
type bounds[N cmp.Ordered] struct {
	lower, upper       N
	isLower, isUpper   bool
	overLower, toUpper bool // the bound itself is not within
}

// take reads one of the rules gt, gte, lt and lte.
func (b *bounds[N]) take(name protoreflect.Name, bound N) error {
	switch name {
	case "gt", "gte":
		b.lower, b.isLower, b.overLower = bound, true, name == "gt"
	case "lt", "lte":
		b.upper, b.isUpper, b.toUpper = bound, true, name == "lt"
	default:
		return errUnknown
	}
	return nil
}

// broken says what n breaks. An upper bound that is not above the lower one means
// that n is not between them. NaN is within all bounds.
func (b *bounds[N]) broken(n N) string {
	low := b.isLower && (n < b.lower || b.overLower && n == b.lower)
	high := b.isUpper && (n > b.upper || b.toUpper && n == b.upper)
	inverted := b.isLower && b.isUpper && b.upper <= b.lower
	switch {
	case !low && !high, inverted && low != high:
		return ""
	case inverted:
		return fmt.Sprintf("must not be between %v and %v, and is %v", b.upper, b.lower, n)
	case low && b.overLower:
		return fmt.Sprintf("must be more than %v, and is %v", b.lower, n)
	case low:
		return fmt.Sprintf("must be at least %v, and is %v", b.lower, n)
	case b.toUpper:
		return fmt.Sprintf("must be less than %v, and is %v", b.upper, n)
	}
	return fmt.Sprintf("must be at most %v, and is %v", b.upper, n)
}

// span is the bounds of a duration.
type span struct{ bounds[time.Duration] }

// takeDuration reads rules of a duration.
func (f *field) takeDuration(name protoreflect.Name, rule protoreflect.Value) error {
	if name == "required" {
		f.required = rule.Bool()
		return nil
	}
	bound, ok := rule.Message().Interface().(*durationpb.Duration)
	if !ok {
		return errUnknown
	}
	return f.span.take(name, bound.AsDuration())
}

func (s *span) broken(m protoreflect.Message) string {
	if !s.isLower && !s.isUpper {
		return ""
	}
	d, _ := m.Interface().(*durationpb.Duration)
	if err := d.CheckValid(); err != nil {
		return "is not a duration: " + err.Error()
	}
	return s.bounds.broken(d.AsDuration())
}
