package routing

import (
	"fmt"
	"regexp/syntax"
)

// maxProgram is how many instructions of RE2 Istio lets Envoy's regular expressions
// have (re2.max_program_size.error_level). Envoy refuses all routes of a message for
// one that has more.
const maxProgram = 32768

// pattern tells what is wrong with a regular expression, each looked at once.
func (b *Builder) pattern(text string) error {
	err, known := b.patterns[text]
	if !known {
		err = patternError(text)
		b.patterns[text] = err
	}
	return err
}

func patternError(text string) error {
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return err
	}
	if n := programSize(program); n > maxProgram {
		return fmt.Errorf("the regular expression is too large: about %d instructions, and %d are allowed; write it shorter, or with fewer and smaller repetitions", n, maxProgram)
	}
	return nil
}

// programSize estimates the size in RE2, which matches bytes where Go matches
// characters: from above, so that what passes here passes there.
func programSize(p *syntax.Prog) (n int) {
	const bytesOfAny = 12 // instructions for any character of up to four bytes
	for _, i := range p.Inst {
		switch i.Op {
		case syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			n += bytesOfAny
		case syntax.InstRune:
			n++
			for j := 0; j+1 < len(i.Rune); j += 2 {
				switch {
				case i.Rune[j+1] < 0x80:
					n++
				default:
					n += bytesOfAny
				}
			}
		default:
			n++
		}
	}
	return n
}
