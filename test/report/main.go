// Report reads `go test -json` on standard input and prints what a person wants
// to see: a line per package, the whole output of each test that failed, and
// each test that was skipped with its reason. It ends with the counts and exits
// 1 when anything failed, or when -no-skip is set and anything was skipped.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

type key struct{ pkg, test string }

type summary struct {
	out                     io.Writer
	output                  map[key][]string
	skipped                 map[key]string
	passed, failed, skips   int
	failedPkgs, failedTests []string
}

func main() {
	noSkip := flag.String("no-skip", "", "a regular expression: a skip whose reason matches is a failure")
	flag.Parse()
	s := &summary{out: os.Stdout, output: map[key][]string{}, skipped: map[key]string{}}
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	if !s.print(*noSkip) {
		os.Exit(1)
	}
}

func (s *summary) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 1<<20), 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(s.out, lines.Text()) // what go itself prints, such as build errors
			continue
		}
		s.take(e)
	}
	return lines.Err()
}

func (s *summary) take(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "output", "build-output":
		if e.Package == "" {
			k.pkg = e.ImportPath
			fmt.Fprint(s.out, e.Output)
		}
		s.output[k] = append(s.output[k], e.Output)
	case "pass":
		if e.Test == "" {
			fmt.Fprintf(s.out, "ok    %-60s %6.1fs\n", e.Package, e.Elapsed)
		} else {
			s.passed++
		}
		delete(s.output, k)
	case "skip":
		if e.Test != "" {
			s.skips++
			s.skipped[k] = reason(s.output[k])
		}
		delete(s.output, k)
	case "fail":
		if e.Test == "" {
			fmt.Fprintf(s.out, "FAIL  %-60s %6.1fs\n", e.Package, e.Elapsed)
			s.failedPkgs = append(s.failedPkgs, e.Package)
		} else {
			s.failed++
			s.failedTests = append(s.failedTests, e.Package+" "+e.Test)
		}
		fmt.Fprint(s.out, strings.Join(s.output[k], ""))
		delete(s.output, k)
	}
}

// reason is what the test said when it skipped: its log lines, without go's own.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			said = append(said, line)
		}
	}
	return strings.Join(said, " ")
}

func (s *summary) print(noSkip string) bool {
	ok := len(s.failedPkgs) == 0 && s.failed == 0
	var forbidden *regexp.Regexp
	if noSkip != "" {
		forbidden = regexp.MustCompile(noSkip)
	}
	keys := slices.SortedFunc(maps.Keys(s.skipped), func(a, b key) int {
		return strings.Compare(a.pkg+a.test, b.pkg+b.test)
	})
	for _, k := range keys {
		why := s.skipped[k]
		fmt.Fprintf(s.out, "skip  %s %s: %s\n", k.pkg, k.test, why)
		if forbidden != nil && forbidden.MatchString(why) {
			fmt.Fprintln(s.out, "      this may not be skipped here")
			ok = false
		}
	}
	for _, t := range s.failedTests {
		fmt.Fprintln(s.out, "fail ", t)
	}
	fmt.Fprintf(s.out, "%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skips)
	return ok
}
