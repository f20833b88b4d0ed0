package main

import (
	"errors"
	"net/url"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcd starts a single member without fsync, on a socket in dir, and returns its URL.
func etcd(dir string) (string, error) {
	c := embed.NewConfig()
	c.Dir = filepath.Join(dir, "etcd")
	c.LogLevel = "error"
	c.UnsafeNoFsync = true
	c.ListenClientUrls = []url.URL{{Scheme: "unix", Path: filepath.Join(dir, "etcd.sock")}}
	// A single member dials no peer, but the URL of one must have a port.
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	c.ListenPeerUrls, c.AdvertisePeerUrls, c.AdvertiseClientUrls = []url.URL{peer}, []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	server, err := embed.StartEtcd(c)
	if err != nil {
		return "", err
	}
	select {
	case <-server.Server.ReadyNotify():
		return c.ListenClientUrls[0].String(), nil
	case err := <-server.Err():
		return "", err
	case <-time.After(30 * time.Second):
		return "", errors.New("not ready after 30 s")
	}
}
