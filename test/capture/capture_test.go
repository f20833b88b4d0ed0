package capture

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// A capture is the witness in every test of secrecy, so it is itself tried: it
// must see plain bytes, and tell TLS 1.3 from TLS 1.2.
func TestCaptureSeesBytesAndVersion(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("a capture needs root")
		}
		t.Skip("a capture needs root")
	}
	name := fmt.Sprintf("fl-capture-%d", os.Getpid())
	ns, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Delete(name) })
	defer ns.Close()

	certificate := identitytest.SelfSigned()
	for version, want := range map[uint16]bool{tls.VersionTLS12: false, tls.VersionTLS13: true} {
		c, err := Start(ns.Path())
		if err != nil {
			t.Fatal(err)
		}
		port := exchange(t, ns, "in the clear "+tls.VersionName(version), nil)
		tlsPort := exchange(t, ns, "a secret", &tls.Config{Certificates: []tls.Certificate{certificate}, MaxVersion: version, MinVersion: tls.VersionTLS12, InsecureSkipVerify: true})
		if err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		if !c.Contains("in the clear " + tls.VersionName(version)) {
			t.Error("plain bytes were not seen")
		}
		if c.Contains("a secret") {
			t.Error("encrypted bytes were seen")
		}
		if c.TLS13(port) {
			t.Error("plain TCP passed for TLS 1.3")
		}
		if got := c.TLS13(tlsPort); got != want {
			t.Errorf("%s: TLS13 = %v", tls.VersionName(version), got)
		}
	}
}

// exchange sends text over loopback in ns and returns the server's port.
func exchange(t *testing.T, ns *netns.NS, text string, config *tls.Config) uint16 {
	t.Helper()
	var listener net.Listener
	var client net.Conn
	err := ns.Do(func() (err error) {
		if err := loopbackUp(); err != nil {
			return err
		}
		if listener, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
			return err
		}
		client, err = net.Dial("tcp4", listener.Addr().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		client, server = tls.Client(client, config), tls.Server(server, config)
	}
	go func() {
		io.WriteString(client, text)
		client.Close()
	}()
	server.SetDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.ReadAll(server); err != nil || string(got) != text {
		t.Fatalf("read %q, %v", got, err)
	}
	server.Close()
	return uint16(listener.Addr().(*net.TCPAddr).Port)
}
