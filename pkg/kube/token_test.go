package kube

import (
	"encoding/base64"
	"testing"
)

func TestWhoseATokenIs(t *testing.T) {
	token := func(claims string) string {
		return "h." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".s"
	}
	namespace, name, err := account(token(`{"sub":"system:serviceaccount:istio-system:ztunnel"}`))
	if err != nil || namespace != "istio-system" || name != "ztunnel" {
		t.Errorf("%s %s %v", namespace, name, err)
	}
	for _, bad := range []string{"", "a.b", "a.!.c", token("{"), token(`{"sub":"admin"}`), token(`{"sub":"system:serviceaccount:x"}`)} {
		if _, _, err := account(bad); err == nil {
			t.Errorf("%q is taken for a service account's", bad)
		}
	}
}
