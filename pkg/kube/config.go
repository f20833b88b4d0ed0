package kube

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// CredentialsDir is where the kubelet puts a pod's credentials for the API.
const CredentialsDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// Config says how to reach the API.
type Config struct {
	// Server is https://host:port.
	Server string
	// CA is the certificates, in PEM, that the server's may be signed by.
	CA []byte
	// TokenFile is read anew for each request; Token is used where it is empty.
	TokenFile, Token string
}

// InCluster is the configuration of a pod: the server from server, or where that is
// empty from the environment, the rest from the files of dir.
func InCluster(server, dir string) (Config, error) {
	if server == "" {
		host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
		if host == "" || port == "" {
			return Config{}, errors.New("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: this is no pod of a cluster, and no API server was named")
		}
		server = "https://" + net.JoinHostPort(host, port)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return Config{}, fmt.Errorf("certificate of the Kubernetes API (is automountServiceAccountToken off?): %w", err)
	}
	return Config{Server: server, CA: ca, TokenFile: filepath.Join(dir, "token")}, nil
}

// Client calls the API. It is safe for concurrent use.
type Client struct {
	config Config
	http   *http.Client
}

// New returns a client. Nothing is asked of the server yet.
func New(c Config) (*Client, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(c.CA) {
		return nil, errors.New("certificate of the Kubernetes API: no PEM certificate in it")
	}
	c.Server = strings.TrimSuffix(c.Server, "/")
	dialer := net.Dialer{Timeout: 10 * time.Second, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	// The token is for the server that is named, whatever it answers.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{config: c, http: &http.Client{CheckRedirect: stay, Transport: &http.Transport{
		DialContext:           dialer.DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		MaxIdleConns:          2,
		IdleConnTimeout:       time.Minute,
	}}}, nil
}

// Config is what the client was made from, with the token of now.
func (c *Client) Config() (Config, error) {
	token, err := c.token()
	return Config{Server: c.config.Server, CA: c.config.CA, Token: token}, err
}

func (c *Client) token() (string, error) {
	if c.config.TokenFile == "" {
		return c.config.Token, nil
	}
	b, err := os.ReadFile(c.config.TokenFile)
	if err != nil {
		return "", fmt.Errorf("token for the Kubernetes API: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
