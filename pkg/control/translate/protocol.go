package translate

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// kubeProtocol is what a port says it speaks: by appProtocol, else by the first
// part of its name, else, for ports where the server speaks first, by number.
func kubeProtocol(p corev1.ServicePort) model.Protocol {
	if p.AppProtocol != nil {
		switch *p.AppProtocol {
		case "kubernetes.io/h2c":
			return model.HTTP2
		case "kubernetes.io/ws":
			return model.HTTP
		case "kubernetes.io/wss":
			return model.HTTPS
		}
		return namedProtocol(*p.AppProtocol)
	}
	name := strings.ToLower(p.Name)
	if name == "grpc-web" || strings.HasPrefix(name, "grpc-web-") {
		return model.GRPC
	}
	name, _, _ = strings.Cut(name, "-")
	if known := namedProtocol(name); known != model.Unsupported {
		return known
	}
	switch p.Port {
	case 25, 53, 3306, 27017: // SMTP, DNS, MySQL, MongoDB
		return model.TCP
	}
	return model.Unsupported
}

// namedProtocol reads the names of protocols that Istio knows.
func namedProtocol(name string) model.Protocol {
	switch strings.ToLower(name) {
	case "http", "http_proxy":
		return model.HTTP
	case "http2":
		return model.HTTP2
	case "grpc", "grpc-web":
		return model.GRPC
	case "tcp", "mongo", "mysql", "redis", "ssh":
		return model.TCP
	case "tls":
		return model.TLS
	case "https":
		return model.HTTPS
	}
	return model.Unsupported
}

// wireProtocol is the little that nodes are told of a protocol.
func wireProtocol(p model.Protocol) workloadapi.AppProtocol {
	switch p {
	case model.HTTP:
		return workloadapi.AppProtocol_HTTP11
	case model.HTTP2:
		return workloadapi.AppProtocol_HTTP2
	case model.GRPC:
		return workloadapi.AppProtocol_GRPC
	case model.TCP:
		return workloadapi.AppProtocol_TCP
	case model.TLS, model.HTTPS:
		return workloadapi.AppProtocol_TLS
	}
	return workloadapi.AppProtocol_UNKNOWN
}
