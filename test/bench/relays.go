package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
)

// relayMain is what one writes with the standard library: a goroutine a
// direction, and io.Copy.
func relayMain(args []string) error {
	f := flag.NewFlagSet("relay", flag.ExitOnError)
	listen, to, kind, pemFile := f.String("listen", "", ""), f.String("to", "", ""), f.String("kind", "copy", ""), f.String("pem", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	var config *tls.Config
	if *kind != "copy" {
		var err error
		if config, err = mutual(*pemFile); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			out, err := net.Dial("tcp", *to)
			if err != nil {
				return
			}
			defer out.Close()
			a, b := closeWriter(c.(*net.TCPConn)), closeWriter(out.(*net.TCPConn))
			switch *kind {
			case "tls-client":
				b = tls.Client(out, config)
			case "tls-server":
				a = tls.Server(c, config)
			}
			done := make(chan struct{})
			go func() {
				_, _ = io.Copy(plain(b), plain(a))
				_ = b.CloseWrite()
				close(done)
			}()
			_, _ = io.Copy(plain(a), plain(b))
			_ = a.CloseWrite()
			<-done
		}()
	}
}

type closeWriter interface {
	io.ReadWriter
	CloseWrite() error
}

// plain hides ReadFrom and WriteTo: the relay copies, it does not splice.
func plain(c io.ReadWriter) io.ReadWriter { return struct{ io.ReadWriter }{c} }

func mutual(file string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: roots, ClientCAs: roots,
		ClientAuth: tls.RequireAndVerifyClientCert, ServerName: "bench", DynamicRecordSizingDisabled: true,
	}, nil
}

// writePEM makes a certificate that is its own root, with its key.
func writePEM(dir string) (string, error) {
	certificate := identitytest.SelfSigned("bench")
	k, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "bench.pem")
	b := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})...)
	return path, os.WriteFile(path, b, 0o600)
}

// haproxy is the configuration of one half of the pair.
func haproxy(dir, name, listen, to, pemFile string, server bool) (string, error) {
	tlsIn, tlsOut := "", ""
	args := fmt.Sprintf("ssl crt %s ca-file %s verify required", pemFile, pemFile)
	if server {
		tlsIn = " " + args
	} else {
		tlsOut = " " + args
	}
	config := fmt.Sprintf(`global
  nbthread 2
  maxconn 8000
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
  ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen l
  bind %s%s
  server s %s%s
`, listen, tlsIn, to, tlsOut)
	path := filepath.Join(dir, name+".cfg")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return "", err
	}
	return path, nil
}

var errNotReady = errors.New("it did not start")
