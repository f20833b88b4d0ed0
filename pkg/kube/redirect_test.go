package kube

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// An answer does not lead the token elsewhere.
func TestRedirectsAreNotFollowed(t *testing.T) {
	asked := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer elsewhere.Close()
	api := httptest.NewTLSServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer api.Close()
	c, err := New(Config{Server: api.URL, CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}), Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	var o Pod
	if err := c.Get(t.Context(), "/api/v1/namespaces/x/pods/y", &o); err == nil || !strings.Contains(err.Error(), "307") || asked {
		t.Errorf("%v; asked elsewhere: %v", err, asked)
	}
}
