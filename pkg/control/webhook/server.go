package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/lobby"
)

const (
	// places bounds connections: API servers keep a few each, but anybody may connect.
	places = 512
	// The times within which a request's head and all of it must come, its answer be
	// taken, and for which a connection may idle.
	headTime, readTime, writeTime, idleTime = 5 * time.Second, 10 * time.Second, 15 * time.Second, 90 * time.Second
	// maxHead bounds a request's head, in bytes.
	maxHead = 16 << 10
	// stopTime is how long reviews under way may take when it stops.
	stopTime = 5 * time.Second
)

// Serve answers on a listener until ctx ends. The certificate is asked for at each
// handshake.
func (h *Handler) Serve(ctx context.Context, listener net.Listener, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) error {
	mux := http.NewServeMux()
	mux.Handle(Path, h)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: headTime, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHead,
		ErrorLog: slog.NewLogLogger(h.logger.Handler(), slog.LevelDebug),
		// HTTP/1.1 alone: one review at a time and connection.
		TLSConfig:    &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate, NextProtos: []string{"http/1.1"}},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if server.Shutdown(late) != nil {
			_ = server.Close() // what is under way ends now
		}
	})
	err := server.ServeTLS(lobby.Listen(listener, places), "", "")
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
