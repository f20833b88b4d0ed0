package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// retryFor bounds a command that begins with `*`. It is long because two cores
// may be shared with anything; a condition that comes true ends the wait.
var retryFor = 40 * time.Second

// command is one word of the scenarios. It returns an error rather than failing
// so that `*` can try it again.
type command func(ts *testscript.TestScript, args []string) error

var verbs = map[string]command{
	"lab":    labVerb,
	"reach":  reach,
	"metric": metric,
	"log":    logRecord,
	"status": status,
	"run":    run,
	"grows":  grows,
	"loaded": loaded,
	"says":   says,
	"share":  share,
	"waits":  waits,
}

var commands = func() map[string]func(*testscript.TestScript, bool, []string) {
	all := map[string]func(*testscript.TestScript, bool, []string){"*": retry}
	for name, verb := range verbs {
		all[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			judge(ts, neg, name, verb(ts, args))
		}
	}
	return all
}()

func judge(ts *testscript.TestScript, neg bool, name string, err error) {
	switch {
	case neg && err == nil:
		ts.Fatalf("%s succeeded", name)
	case !neg && err != nil:
		ts.Fatalf("%s: %v", name, err)
	}
}

// retry runs `* verb args...` until it succeeds; `* ! verb args...` until it fails.
func retry(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) > 0 && args[0] == "!" {
		neg, args = true, args[1:]
	}
	if len(args) == 0 || verbs[args[0]] == nil {
		ts.Fatalf("usage: * [!] %s args...", strings.Join(slices.Sorted(maps.Keys(verbs)), "|"))
	}
	deadline := time.Now().Add(retryFor)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := verbs[args[0]](ts, args[1:])
		if (err == nil) != neg {
			return
		}
		if time.Now().After(deadline) {
			judge(ts, neg, strings.Join(args, " ")+" (tried for "+retryFor.String()+")", err)
			return
		}
		<-tick.C
	}
}

// fairlead runs the CLI and returns its standard output.
func fairlead(ts *testscript.TestScript, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(binaries, "fairlead"), args...)
	cmd.Dir = ts.MkAbs(".")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("fairlead %s: %w\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

func inPod(ts *testscript.TestScript, pod string, argv ...string) (string, error) {
	return fairlead(ts, append([]string{"lab", "exec", "--name", ts.Getenv("LAB"), pod, "--"}, argv...)...)
}

// labVerb: lab VERB args... is `fairlead lab VERB --name $LAB args...`; `lab up`
// takes the directory `cluster` and returns when the cluster is ready.
func labVerb(ts *testscript.TestScript, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: lab up|down|ps|kill|start|delete|logs ...")
	}
	argv := append([]string{"lab", args[0], "--name", ts.Getenv("LAB")}, args[1:]...)
	if args[0] == "up" {
		more, err := upArgs(ts.Getenv("LAB"))
		if err != nil {
			return err
		}
		argv = slices.Concat([]string{"lab", "up", "--name", ts.Getenv("LAB")}, more, args[1:], []string{"--detach", ts.MkAbs("cluster")})
	}
	out, err := fairlead(ts, argv...)
	ts.Logf("%s", out)
	return err
}

// run POD PROGRAM args... [want=REGEXP] runs a program in a pod; the last
// argument may say what its output must match.
func run(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: run POD PROGRAM args... [want=REGEXP]")
	}
	argv, want := args[1:], ""
	if w, ok := strings.CutPrefix(argv[len(argv)-1], "want="); ok {
		argv, want = argv[:len(argv)-1], w
	}
	out, err := inPod(ts, args[0], argv...)
	if err != nil {
		return err
	}
	return match("output", want, out)
}

// reach POD URL [status=N] [body=REGEXP] [error=refused|reset|timeout|any] [-- args...]
// asks for URL with curl in the pod, which is given what stands behind `--`. A word
// without a scheme is taken as http.
func reach(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: reach POD URL [status=N] [body=REGEXP] [error=refused|reset|timeout|any] [-- curl's args...]")
	}
	argv := []string{"curl", "-sS", "-m", "15", "--noproxy", "*", "-w", "\n%{http_code}", args[1]}
	args, more := cutAt(args, "--")
	want := keyValues(args[2:])
	out, err := inPod(ts, args[0], append(argv, more...)...)
	if kind, ok := want["error"]; ok {
		if err == nil {
			return fmt.Errorf("answered, want error %s:\n%s", kind, out)
		}
		return curlError(kind, err)
	}
	if err != nil {
		return err
	}
	body, code, _ := cutLast(out, "\n")
	if s, ok := want["status"]; ok && s != code {
		return fmt.Errorf("status %s, want %s:\n%s", code, s, body)
	}
	return match("body", want["body"], body)
}

// curlError tells curl's ways of failing apart by its exit code.
func curlError(kind string, err error) error {
	codes := map[string][]string{
		"refused": {"(7)"},
		"reset":   {"(52)", "(56)", "(7)"},
		"timeout": {"(28)"},
		"any":     {"curl:"},
	}
	for _, code := range codes[kind] {
		if strings.Contains(err.Error(), code) {
			return nil
		}
	}
	return fmt.Errorf("want error %s: %w", kind, err)
}

// share POD URL N KIND LOW HIGH [-- args...] asks N times, with the load generator
// and what stands behind `--`, and counts how often a version answered: KIND is the
// "version" of an echo server or of Bookinfo's reviews. Every request must succeed.
func share(ts *testscript.TestScript, args []string) error {
	args, more := cutAt(args, "--")
	if len(args) != 6 {
		return fmt.Errorf("usage: share POD URL N KIND LOW HIGH [-- load's args...]")
	}
	low, err1 := strconv.ParseInt(args[4], 10, 64)
	high, err2 := strconv.ParseInt(args[5], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	argv := []string{"fairlead", "app", "load", "--url", args[1], "--requests", args[2], "--concurrency", "8", "--keep-alive", "--count", versionPattern}
	out, err := inPod(ts, args[0], append(argv, more...)...)
	if err != nil {
		return err
	}
	got, _ := lastLoad(out)
	ts.Logf("%s of %s: %v", args[3], args[2], got.Counts)
	if got.Failed > 0 {
		return fmt.Errorf("%d requests failed: %v", got.Failed, got.Errors)
	}
	if n := got.Counts[args[3]]; n < low || n > high {
		return fmt.Errorf("%s answered %d of %d, want %d to %d: %v", args[3], n, got.OK, low, high, got.Counts)
	}
	return nil
}

// versionPattern finds the version in the answers of the lab's programs.
const versionPattern = `"(?:version|clustername)":"([^"]*)"`

// waits is `* waits POD`: all pods of a deployment, or one, are ready, and none is on
// its way out.
func waits(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: * waits NAMESPACE/NAME")
	}
	pods, err := podsOf(ts, args[0])
	if err != nil {
		return err
	}
	if len(pods) == 0 {
		return fmt.Errorf("there is no pod of %s", args[0])
	}
	for _, p := range pods {
		if !p.Ready || p.Terminating {
			return fmt.Errorf("pod %s: ready %v, terminating %v %s", p.Name, p.Ready, p.Terminating, p.Reason)
		}
	}
	return nil
}

// logRecord NODE key=value... succeeds when a node agent's log holds a record
// with all of them; a value may be a regular expression between slashes.
func logRecord(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: log NODE key=value...")
	}
	out, err := fairlead(ts, "lab", "logs", "--name", ts.Getenv("LAB"), "agent/"+args[0])
	if err != nil {
		return err
	}
	want := keyValues(args[1:])
	near, nearest := "", -1
	for line := range strings.Lines(out) {
		var record map[string]any
		if json.Unmarshal([]byte(line), &record) != nil {
			continue
		}
		hits := 0
		for k, v := range want {
			if fieldMatches(record, k, v) {
				hits++
			}
		}
		if hits == len(want) {
			return nil
		}
		if hits > nearest {
			near, nearest = line, hits
		}
	}
	return fmt.Errorf("no record with %v; nearest has %d of them:\n%s", args[1:], nearest, near)
}

func fieldMatches(record map[string]any, key, want string) bool {
	got, ok := record[key]
	if !ok {
		return want == ""
	}
	text := fmt.Sprint(got)
	if len(want) > 1 && want[0] == '/' && want[len(want)-1] == '/' {
		matched, err := regexp.MatchString(want[1:len(want)-1], text)
		return err == nil && matched
	}
	return text == want
}

// status FILE REGEXP looks at what the control plane wrote under cluster/.fairlead/status.
func status(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: status FILE REGEXP")
	}
	file := ts.MkAbs(filepath.Join("cluster/.fairlead/status", args[0]))
	out, err := exec.Command("cat", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %s", file, out)
	}
	return match(args[0], args[1], string(out))
}

// cutAt are the arguments before a word and those behind it.
func cutAt(args []string, word string) (before, behind []string) {
	if i := slices.Index(args, word); i >= 0 {
		return args[:i], args[i+1:]
	}
	return args, nil
}

func keyValues(args []string) map[string]string {
	out := map[string]string{}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		out[k] = v
	}
	return out
}

func match(what, pattern, text string) error {
	if pattern == "" {
		return nil
	}
	re, err := regexp.Compile("(?s)" + pattern)
	if err != nil {
		return err
	}
	if !re.MatchString(text) {
		return fmt.Errorf("%s does not match %q:\n%s", what, pattern, text)
	}
	return nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
