package differential

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// proxy is one of the two that are compared.
type proxy struct {
	name  string // "envoy" or "ours"
	mark  string // what its cases' numbers begin with
	host  string // the address that its listeners are bound to
	admin string
	log   string // path of its access log
	ads   *ads
	cmd   *exec.Cmd
	out   string // path of what it prints

	// mu guards below.
	mu      sync.Mutex
	offset  int64
	records map[string][]record // of the access log, by case
}

// record is a line of the access log.
type record map[string]any

// logFormat is the access log's; the key "case" finds a request's line.
var logFormat = map[string]string{
	"case": "%REQ(X-CASE)%", "code": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%", "details": "%RESPONSE_CODE_DETAILS%", "route": "%ROUTE_NAME%",
	"cluster": "%UPSTREAM_CLUSTER%", "upstream": "%UPSTREAM_HOST%", "sent": "%BYTES_SENT%", "received": "%BYTES_RECEIVED%", "protocol": "%PROTOCOL%",
	"attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "method": "%REQ(:METHOD)%", "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "authority": "%REQ(:AUTHORITY)%",
	"termination": "%CONNECTION_TERMINATION_DETAILS%", "grpc": "%GRPC_STATUS%", "sni": "%REQUESTED_SERVER_NAME%", "prefix": "@PREFIX@",
}

func (p *proxy) bootstrap(dir string) (string, error) {
	host, port, err := net.SplitHostPort(p.ads.address)
	if err != nil {
		return "", err
	}
	adminHost, adminPort, err := net.SplitHostPort(p.admin)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf(`
node: {id: %s, cluster: differential}
stats_flush_interval: 0.1s
admin: {address: {socket_address: {address: %s, port_value: %s}}}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, set_node_on_first_message_only: true, grpc_services: [{envoy_grpc: {cluster_name: ads}}]}
  cds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
  lds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
static_resources:
  clusters:
  - name: ads
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: ads, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]}
`, p.name, adminHost, adminPort, host, port)
	path := filepath.Join(dir, p.name+".yaml")
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// start runs the proxy's program until stop.
func (p *proxy) start(args ...string) error {
	p.records = map[string][]record{}
	out, err := os.Create(p.out)
	if err != nil {
		return err
	}
	defer out.Close()
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// It ends with this process, however that ends.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p.cmd.Start()
}

func (p *proxy) stop() {
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// stats are the proxy's counters and gauges.
func (p *proxy) stats() (map[string]int64, error) {
	response, err := http.Get("http://" + p.admin + "/stats")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	out := map[string]int64{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), ": ")
		if n, err := strconv.ParseInt(value, 10, 64); ok && err == nil {
			out[name] = n
		}
	}
	return out, lines.Err()
}

// readLog takes in what the access log has gained.
func (p *proxy) readLog() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, err := os.Open(p.log)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, p.offset, 1<<40))
	if err != nil {
		return err
	}
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return nil
		}
		r := record{}
		if err := json.Unmarshal(b[:i], &r); err != nil {
			return fmt.Errorf("%s: access log: %w: %s", p.name, err, b[:i])
		}
		key, _ := r["case"].(string)
		if key == "" || key == "-" {
			key = fmt.Sprint("of ", r["prefix"])
		}
		p.records[key] = append(p.records[key], r)
		p.offset += int64(i) + 1
		b = b[i+1:]
	}
}

func (p *proxy) recordsOf(key string) []record {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.records[key]
}

// ready waits until the proxy listens where its configuration says.
func (p *proxy) ready(port int) error {
	var err error
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		var c net.Conn
		if c, err = net.Dial("tcp", net.JoinHostPort(p.host, strconv.Itoa(port))); err == nil {
			return c.Close()
		}
	}
	return err
}
