package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	labs "github.com/fairlead-mesh/fairlead/pkg/lab"
)

// podsOf are those of a deployment, or the one, of the name namespace/name.
func podsOf(ts *testscript.TestScript, name string) ([]labs.PodView, error) {
	out, err := fairlead(ts, "lab", "ps", "--name", ts.Getenv("LAB"), "-o", "json")
	if err != nil {
		return nil, err
	}
	var v labs.View
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return nil, err
	}
	namespace, name, _ := strings.Cut(name, "/")
	var pods []labs.PodView
	for _, p := range v.Pods {
		if p.Namespace == namespace && (p.Deployment == name || p.Name == name) {
			pods = append(pods, p)
		}
	}
	return pods, nil
}

// metrics is the page of a node's agent, or, of NAMESPACE/NAME, those of all ready pods
// of a waypoint.
func metrics(ts *testscript.TestScript, place string) (string, error) {
	if !strings.Contains(place, "/") {
		return inPod(ts, "node/"+place, "curl", "-sS", "-m", "10", "http://localhost:15020/metrics")
	}
	pods, err := podsOf(ts, place)
	if err != nil {
		return "", err
	}
	var pages strings.Builder
	for _, p := range pods {
		if !p.Ready {
			continue
		}
		page, err := inPod(ts, p.Namespace+"/"+p.Name, "curl", "-sS", "-m", "10", "http://localhost:15020/stats/prometheus")
		if err != nil {
			return "", err
		}
		pages.WriteString(page)
	}
	return pages.String(), nil
}

// metric PLACE 'name{label="value",...}' OP N compares the sum of the matching series
// of a node's agent, or of a waypoint's pods: OP is one of == >= <= > <.
func metric(ts *testscript.TestScript, args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("usage: metric NODE|NAMESPACE/WAYPOINT 'name{label=\"value\"}' OP N")
	}
	out, err := metrics(ts, args[0])
	if err != nil {
		return err
	}
	got, series := sum(out, args[1])
	want, err := strconv.ParseFloat(args[3], 64)
	if err != nil {
		return err
	}
	ok := map[string]bool{"==": got == want, ">=": got >= want, "<=": got <= want, ">": got > want, "<": got < want}[args[2]]
	if !ok {
		return fmt.Errorf("%s is %v in %d series, want %s %v", args[1], got, series, args[2], want)
	}
	return nil
}

// firstSeen is what `grows` and `loaded` saw when they were first asked, by lab and
// arguments. It is forgotten when they succeed.
var firstSeen sync.Map

// grows PLACE 'name{label="value",...}' N succeeds when the sum of the matching
// series has grown by N since it was first asked: with `*`, from now on.
func grows(ts *testscript.TestScript, args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: * grows NODE 'name{label=\"value\"}' N")
	}
	out, err := metrics(ts, args[0])
	if err != nil {
		return err
	}
	got, _ := sum(out, args[1])
	return grown(ts, args, got, args[2])
}

// says PART REGEXP [N] succeeds when N lines, or one, of a part's log match.
func says(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 && len(args) != 3 {
		return fmt.Errorf("usage: says PART REGEXP [N]")
	}
	want := 1
	if len(args) == 3 {
		var err error
		if want, err = strconv.Atoi(args[2]); err != nil {
			return err
		}
	}
	re, err := regexp.Compile(args[1])
	if err != nil {
		return err
	}
	out, err := fairlead(ts, "lab", "logs", "--name", ts.Getenv("LAB"), args[0])
	if err != nil {
		return err
	}
	got := 0
	for line := range strings.Lines(out) {
		if re.MatchString(line) {
			got++
		}
	}
	if got < want {
		return fmt.Errorf("%d lines of %s match, want %d", got, args[0], want)
	}
	return nil
}

func grown(ts *testscript.TestScript, args []string, got float64, by string) error {
	n, err := strconv.ParseFloat(by, 64)
	if err != nil {
		return err
	}
	key := ts.Getenv("LAB") + " " + strings.Join(args, " ")
	first, _ := firstSeen.LoadOrStore(key, got)
	if got < first.(float64)+n {
		return fmt.Errorf("from %v to %v, want %v more", first, got, n)
	}
	firstSeen.Delete(key)
	return nil
}

// loaded POD N succeeds when the load generator in POD had N more answers since
// it was first asked. An error of the load, since `loaded` was first asked of it,
// fails the scenario at once.
func loaded(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: * loaded POD N")
	}
	out, err := fairlead(ts, "lab", "logs", "--name", ts.Getenv("LAB"), args[0])
	if err != nil {
		return err
	}
	last, lines := lastLoad(out)
	// A line is as old as the load's interval: what it does not tell of yet is of
	// before the first question too.
	if asked, _ := firstSeen.LoadOrStore(ts.Getenv("LAB")+" lines of "+args[0], lines); lines < asked.(int)+2 {
		return fmt.Errorf("no word of %s's load since it was first asked", args[0])
	}
	before, _ := firstSeen.LoadOrStore(ts.Getenv("LAB")+" errors of "+args[0], last.Failed)
	if last.Failed > before.(int64) {
		ts.Fatalf("the load in %s had errors after %v answers: %v", args[0], last.OK, last.Errors)
	}
	return grown(ts, args, float64(last.OK), args[1])
}

var label = regexp.MustCompile(`\w+="[^"]*"`)

// sum adds up the series of an exposition whose name and labels are selected.
func sum(exposition, selector string) (total float64, series int) {
	name, labels, _ := strings.Cut(selector, "{")
	want := label.FindAllString(labels, -1)
	for line := range strings.Lines(exposition) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || (rest[0] != '{' && rest[0] != ' ') {
			continue
		}
		have := label.FindAllString(rest, -1)
		if !containsAll(have, want) {
			continue
		}
		_, value, _ := cutLast(strings.TrimSpace(rest), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			total += v
			series++
		}
	}
	return total, series
}

func containsAll(have, want []string) bool {
	for _, w := range want {
		if !slices.Contains(have, w) {
			return false
		}
	}
	return true
}
