package rules

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/envoyproxy/protoc-gen-validate/validate"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var errUnknown = errors.New("this rule is not known here")

// check says why a scalar breaks a rule, or "".
type check func(protoreflect.Value) string

// checks are the rules of a scalar.
type checks []check

func (all checks) broken(v protoreflect.Value) string {
	for _, c := range all {
		if reason := c(v); reason != "" {
			return reason
		}
	}
	return ""
}

// newChecks reads rules of scalars of fd's kind.
func newChecks(fd protoreflect.FieldDescriptor, rules protoreflect.Message) (out checks, err error) {
	ignoreEmpty := false
	take := func(c check, err error) error {
		if c != nil {
			out = append(out, c)
		}
		return err
	}
	number := func(take func(name protoreflect.Name, rule protoreflect.Value) error, c check) {
		out, err = checks{c}, each(rules, take)
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		of, _ := rules.Interface().(*validate.StringRules)
		ignoreEmpty = of.GetIgnoreEmpty()
		err = each(rules, func(name protoreflect.Name, rule protoreflect.Value) error { return take(stringCheck(of, name, rule)) })
	case protoreflect.BytesKind:
		err = each(rules, func(name protoreflect.Name, rule protoreflect.Value) error { return take(bytesCheck(name, rule)) })
	case protoreflect.EnumKind:
		err = each(rules, func(name protoreflect.Name, rule protoreflect.Value) error {
			return take(enumCheck(fd.Enum(), name, rule))
		})
	case protoreflect.BoolKind:
		err = each(rules, func(name protoreflect.Name, rule protoreflect.Value) error {
			if name != "const" {
				return errUnknown
			}
			return take(must(func(v protoreflect.Value) bool { return v.Bool() == rule.Bool() }, fmt.Sprintf("must be %v", rule)), nil)
		})
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		b := new(bounds[float64])
		number(func(name protoreflect.Name, rule protoreflect.Value) error { return b.take(name, rule.Float()) },
			func(v protoreflect.Value) string { return b.broken(v.Float()) })
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		b := new(bounds[uint64])
		number(func(name protoreflect.Name, rule protoreflect.Value) error { return b.take(name, rule.Uint()) },
			func(v protoreflect.Value) string { return b.broken(v.Uint()) })
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		b := new(bounds[int64])
		number(func(name protoreflect.Name, rule protoreflect.Value) error { return b.take(name, rule.Int()) },
			func(v protoreflect.Value) string { return b.broken(v.Int()) })
	default:
		err = errUnknown
	}
	if ignoreEmpty {
		held := out
		out = checks{func(v protoreflect.Value) string {
			if v.String() == "" {
				return ""
			}
			return held.broken(v)
		}}
	}
	return out, err
}

// must is a check that something holds.
func must(hold func(protoreflect.Value) bool, reason string) check {
	return func(v protoreflect.Value) string {
		if hold(v) {
			return ""
		}
		return reason
	}
}

func enumCheck(of protoreflect.EnumDescriptor, name protoreflect.Name, rule protoreflect.Value) (check, error) {
	switch name {
	case "defined_only":
		if !rule.Bool() {
			return nil, nil
		}
		values := of.Values()
		return func(v protoreflect.Value) string {
			if values.ByNumber(v.Enum()) != nil {
				return ""
			}
			return fmt.Sprintf("is %d, which is no value of %s", v.Enum(), of.FullName())
		}, nil
	case "in", "not_in":
		listed := rule.List()
		return must(func(v protoreflect.Value) bool {
			for i := range listed.Len() {
				if listed.Get(i).Int() == int64(v.Enum()) {
					return name == "in"
				}
			}
			return name == "not_in"
		}, "has a value of "+string(of.FullName())+" that is not allowed here"), nil
	}
	return nil, errUnknown
}

func bytesCheck(name protoreflect.Name, rule protoreflect.Value) (check, error) {
	switch name {
	case "min_len":
		return must(func(v protoreflect.Value) bool { return uint64(len(v.Bytes())) >= rule.Uint() }, fmt.Sprintf("must have at least %d bytes", rule.Uint())), nil
	case "max_len":
		return must(func(v protoreflect.Value) bool { return uint64(len(v.Bytes())) <= rule.Uint() }, fmt.Sprintf("must have at most %d bytes", rule.Uint())), nil
	}
	return nil, errUnknown
}

func stringCheck(all *validate.StringRules, name protoreflect.Name, rule protoreflect.Value) (check, error) {
	switch name {
	case "ignore_empty", "strict":
		return nil, nil // they change what others mean
	case "well_known_regex":
		return headerText(all.GetWellKnownRegex(), all.Strict == nil || all.GetStrict()), nil
	case "min_len":
		least := rule.Uint()
		if least == 1 {
			return must(func(v protoreflect.Value) bool { return v.String() != "" }, "must not be empty"), nil
		}
		return must(func(v protoreflect.Value) bool { return uint64(utf8.RuneCountInString(v.String())) >= least },
			fmt.Sprintf("must have at least %d characters", least)), nil
	case "max_len":
		return must(func(v protoreflect.Value) bool { return uint64(utf8.RuneCountInString(v.String())) <= rule.Uint() },
			fmt.Sprintf("must have at most %d characters", rule.Uint())), nil
	case "min_bytes":
		return must(func(v protoreflect.Value) bool { return uint64(len(v.String())) >= rule.Uint() }, fmt.Sprintf("must have at least %d bytes", rule.Uint())), nil
	case "max_bytes":
		return must(func(v protoreflect.Value) bool { return uint64(len(v.String())) <= rule.Uint() }, fmt.Sprintf("must have at most %d bytes", rule.Uint())), nil
	case "prefix":
		return must(func(v protoreflect.Value) bool { return strings.HasPrefix(v.String(), rule.String()) }, fmt.Sprintf("must begin with %q", rule.String())), nil
	case "suffix":
		return must(func(v protoreflect.Value) bool { return strings.HasSuffix(v.String(), rule.String()) }, fmt.Sprintf("must end with %q", rule.String())), nil
	case "in":
		return must(func(v protoreflect.Value) bool { return isListed(rule.List(), v) }, fmt.Sprintf("must be one of %v", rule.List())), nil
	case "not_in":
		return must(func(v protoreflect.Value) bool { return !isListed(rule.List(), v) }, fmt.Sprintf("must be none of %v", rule.List())), nil
	case "pattern":
		pattern, err := regexp.Compile(rule.String())
		if err != nil {
			return nil, err
		}
		return must(func(v protoreflect.Value) bool { return pattern.MatchString(v.String()) }, fmt.Sprintf("does not match %q", rule.String())), nil
	}
	return nil, errUnknown
}

func isListed(all protoreflect.List, v protoreflect.Value) bool {
	for i := range all.Len() {
		if all.Get(i).Equal(v) {
			return true
		}
	}
	return false
}

// Names and values of header fields, strictly and otherwise.
const (
	lineBreaks      = "\x00\n\r"
	headerNameBytes = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!#$%&'*+-.^_|~`,"
)

// headerText is protoc-gen-validate's well_known_regex, without a regular expression.
func headerText(kind validate.KnownRegex, strict bool) check {
	switch {
	case kind == validate.KnownRegex_UNKNOWN:
		return nil
	case !strict:
		return must(func(v protoreflect.Value) bool { return !strings.ContainsAny(v.String(), lineBreaks) }, "must not contain a line break or a zero byte")
	case kind == validate.KnownRegex_HTTP_HEADER_NAME:
		return must(func(v protoreflect.Value) bool {
			name := strings.TrimPrefix(v.String(), ":")
			return name != "" && strings.Trim(name, headerNameBytes) == ""
		}, "is not the name of a header field")
	}
	return must(func(v protoreflect.Value) bool {
		return !strings.ContainsFunc(v.String(), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
	}, "must not contain control characters")
}
