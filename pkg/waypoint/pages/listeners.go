package pages

import (
	"fmt"
	"net/http"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint"
)

// listeners is Envoy's /listeners, as text or with ?format=json.
func (p *Pages) listeners(w http.ResponseWriter, r *http.Request) {
	all := p.o.Engine.Listeners()
	if r.URL.Query().Get("format") != "json" {
		w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
		for _, l := range all {
			address := "envoy://" + l.Name
			if l.Address.IsValid() {
				address = l.Address.String()
			}
			fmt.Fprintf(w, "%s::%s\n", l.Name, address)
		}
		return
	}
	out := &adminv3.Listeners{}
	for _, l := range all {
		out.ListenerStatuses = append(out.ListenerStatuses, &adminv3.ListenerStatus{Name: l.Name, LocalAddress: addressOf(l)})
	}
	message(w, out)
}

func addressOf(l waypoint.ListenerInfo) *corev3.Address {
	if !l.Address.IsValid() {
		return &corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
			AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: l.Name},
		}}}
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: l.Address.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(l.Address.Port())},
	}}}
}
