// Package differential compares our waypoint with a real Envoy: both get the same
// configuration over xDS and the same requests, and what clients and upstreams see,
// what the access log says and what the statistics count must be equal. What is not is
// in differences.yaml, with its effect on a user.
//
// `make test-envoy` runs it; without its environment variable nothing here runs.
//
//	DIFFERENTIAL=1          run; test/envoy/install.sh gets the Envoy
//	DIFFERENTIAL_WAYPOINT   the binary of the waypoint; else it is built
//	DIFFERENTIAL_SEED       the seed of what is random; else it is drawn, and printed
//	DIFFERENTIAL_KEEP       a directory for logs, what the proxies print, and each
//	                        difference that a row stands for
package differential

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	realenvoy "github.com/fairlead-mesh/fairlead/test/envoy"
)

var (
	envoyProxy, ourProxy *proxy
	upstreams            *upstream
	seed                 uint64
	partial              bool // not all tests run
	failFast             bool // go test's -failfast
)

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv("DIFFERENTIAL") == "" {
		os.Exit(m.Run())
	}
	partial = flag.Lookup("test.run").Value.String() != ""
	failFast = flag.Lookup("test.failfast").Value.String() == "true"
	os.Exit(serve(m))
}

// serve runs the tests between start and end of the two proxies.
func serve(m *testing.M) int {
	dir, err := os.MkdirTemp("", "differential")
	if keep := os.Getenv("DIFFERENTIAL_KEEP"); keep != "" {
		dir, err = keep, os.MkdirAll(keep, 0o755)
	} else {
		defer os.RemoveAll(dir)
	}
	if err != nil {
		return failed(err)
	}
	seed = rand.Uint64()
	if s := os.Getenv("DIFFERENTIAL_SEED"); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			return failed(err)
		}
	}
	fmt.Printf("differential: DIFFERENTIAL_SEED=%d\n", seed)
	if upstreams, err = newUpstream(); err != nil {
		return failed(err)
	}
	defer upstreams.close()
	stop, err := startProxies(dir)
	defer stop()
	if err != nil {
		return failed(err)
	}
	code := m.Run()
	if !report() && code == 0 {
		code = 1
	}
	if code != 0 {
		for _, p := range []*proxy{envoyProxy, ourProxy} {
			if b, err := os.ReadFile(p.out); err == nil && len(b) > 0 {
				fmt.Printf("== %s printed, at the end:\n%s\n", p.name, b[max(0, len(b)-3000):])
			}
		}
	}
	return code
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, "differential:", err)
	return 1
}

func startProxies(dir string) (stop func(), err error) {
	var all []*proxy
	stop = func() {
		for _, p := range all {
			p.stop()
			p.ads.server.Stop()
		}
	}
	for i, name := range []string{"envoy", "ours"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return stop, err
		}
		p := &proxy{name: name, mark: name[:1], host: fmt.Sprintf("127.71.%d.%d", octet, i+1), log: filepath.Join(dir, name+".log"), out: filepath.Join(dir, name+".out"), ads: newADS(l)}
		p.admin = p.host + ":20000"
		_ = os.Remove(p.log)
		all = append(all, p)
	}
	envoyProxy, ourProxy = all[0], all[1]
	envoy, err := realenvoy.Path()
	if err != nil {
		return stop, err
	}
	waypoint, err := waypointBinary(dir)
	if err != nil {
		return stop, err
	}
	bootstraps := make([]string, 2)
	for i, p := range all {
		if bootstraps[i], err = p.bootstrap(dir); err != nil {
			return stop, err
		}
	}
	if err := envoyProxy.start(envoy, "-c", bootstraps[0], "-l", "warning", "--concurrency", "1", "--use-dynamic-base-id",
		"--file-flush-interval-msec", "20", "--drain-time-s", "1", "--parent-shutdown-time-s", "2"); err != nil {
		return stop, err
	}
	if err := ourProxy.start(waypoint, "--bootstrap", bootstraps[1], "--admin-address", ourProxy.admin,
		"--metrics-address", ourProxy.host+":20001", "--readiness-address", ourProxy.host+":20002", "--log-level", "warn"); err != nil {
		return stop, err
	}
	for _, p := range all {
		if err := p.ready(20000); err != nil {
			b, _ := os.ReadFile(p.out)
			return stop, fmt.Errorf("%s does not start: %w\n%s", p.name, err, b)
		}
	}
	return stop, nil
}

func waypointBinary(dir string) (string, error) {
	if b := os.Getenv("DIFFERENTIAL_WAYPOINT"); b != "" {
		return b, nil
	}
	path := filepath.Join(dir, "waypoint")
	cmd := exec.Command("go", "build", "-tags", "grpcnotrace", "-o", path, "../../cmd/waypoint")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the waypoint: %w\n%s", err, out)
	}
	return path, nil
}
