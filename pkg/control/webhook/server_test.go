package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/turns"
)

func newHandler(t *testing.T) *Handler {
	t.Helper()
	h, err := NewHandler(prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func review(t *testing.T, object string) []byte {
	t.Helper()
	text, err := json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{Kind: "AdmissionReview", APIVersion: "admission.k8s.io/v1"}, Request: request(t, object, ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// serve serves until stop, for a client that trusts it.
func serve(t *testing.T) (client *http.Client, address string, stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// The standard library's own test certificate.
	made := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(made.Close)
	certificate := made.TLS.Certificates[0]
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- newHandler(t).Serve(ctx, listener, func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil })
	}()
	return made.Client(), listener.Addr().String(), func() {
		t.Helper()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("it does not stop")
		}
	}
}

func TestServes(t *testing.T) {
	client, address, stop := serve(t)
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	post := func(path, media string, body []byte) (*http.Response, string) {
		t.Helper()
		response, err := client.Post("https://"+address+path, media, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response, string(text)
	}
	response, text := post(Path, "application/json", review(t, wrong))
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Response == nil || answer.Response.Allowed || answer.Response.UID != "u" || answer.Kind != "AdmissionReview" {
		t.Errorf("%v: %s", err, text)
	}
	if response.ProtoMajor != 1 {
		t.Errorf("served in %s", response.Proto)
	}
	for name, c := range map[string]struct {
		path, media string
		body        []byte
		code        int
	}{
		"another path":  {"/inject", "application/json", review(t, right), http.StatusNotFound},
		"another media": {Path, "text/plain", review(t, right), http.StatusUnsupportedMediaType},
		"no JSON":       {Path, "application/json", []byte("{"), http.StatusBadRequest},
		"no request":    {Path, "application/json", []byte(`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}`), http.StatusBadRequest},
		"too large":     {Path, "application/json", bytes.Repeat([]byte(" "), maxReview+1), http.StatusRequestEntityTooLarge},
	} {
		if response, text := post(c.path, c.media, c.body); response.StatusCode != c.code {
			t.Errorf("%s: %d %s, want %d", name, response.StatusCode, text, c.code)
		}
	}
	stop()
}

// More reviews than there are turns wait, and are told when it takes too long; one address has
// no more than its share.
func TestTurnsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t)
		ask := func(from string) *httptest.ResponseRecorder {
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, Path, bytes.NewReader(review(t, right)))
			r.Header.Set("Content-Type", "application/json")
			r.RemoteAddr = from + ":1"
			h.ServeHTTP(w, r)
			return w
		}
		var held []*turns.Turn
		hold := func(from string, n int) {
			for range n {
				turn, err := h.turns.Take(t.Context(), netip.MustParseAddr(from))
				if err != nil {
					t.Fatal(err)
				}
				held = append(held, turn)
			}
		}
		hold("192.0.2.1", share)
		if w := ask("192.0.2.1"); w.Code != http.StatusServiceUnavailable {
			t.Errorf("more than its share: %d %s", w.Code, w.Body)
		}
		if w := ask("192.0.2.9"); w.Code != http.StatusOK {
			t.Errorf("another: %d %s", w.Code, w.Body)
		}
		hold("192.0.2.2", atOnce-share)
		if w := ask("192.0.2.9"); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "too many") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		go func() {
			<-time.After(maxWait / 2)
			held[0].End()
		}()
		if w := ask("192.0.2.9"); w.Code != http.StatusOK {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		for _, turn := range held {
			turn.End()
		}
		if h.turns.Given() != 0 || h.turns.Waiting() != 0 {
			t.Error("a turn has not ended")
		}
	})
}

// Strangers who send reviews slowly, however many and however large, keep nobody's out.
func TestSlowStrangers(t *testing.T) {
	client, address, stop := serve(t)
	defer stop()
	client.Timeout = 30 * time.Second
	ask := func(object []byte) {
		t.Helper()
		response, err := client.Post("https://"+address+Path, "application/json", bytes.NewReader(object))
		if err != nil {
			t.Error(err)
			return
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s", response.Status)
		}
	}
	ask(review(t, right))
	head := "POST " + Path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 8000000\r\n\r\n"
	for i := range places + 50 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i%3+2))}, Timeout: 10 * time.Second}
		raw, err := d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		if i%10 > 0 {
			continue // says nothing
		}
		conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a stranger does not care
		_, _ = conn.Write([]byte(head))
		if i%20 == 0 {
			_, _ = conn.Write(bytes.Repeat([]byte(" "), small+1))
		}
	}
	ask(review(t, right))
	client.CloseIdleConnections()
	ask(review(t, right))
	ask(bytes.Replace(review(t, right), []byte("{"), append([]byte("{"), bytes.Repeat([]byte(" "), 2*small)...), 1))
}
