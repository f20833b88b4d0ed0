package translate

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
)

// kubeProtocol is what a port says it speaks: by appProtocol, else by the first
// part of its name, else, for ports where the server speaks first, by number.
func kubeProtocol(p corev1.ServicePort) workloadapi.AppProtocol {
	if p.AppProtocol != nil {
		switch *p.AppProtocol {
		case "kubernetes.io/h2c":
			return workloadapi.AppProtocol_HTTP2
		case "kubernetes.io/ws":
			return workloadapi.AppProtocol_HTTP11
		case "kubernetes.io/wss":
			return workloadapi.AppProtocol_TLS
		}
		return namedProtocol(*p.AppProtocol)
	}
	name := strings.ToLower(p.Name)
	if name == "grpc-web" || strings.HasPrefix(name, "grpc-web-") {
		return workloadapi.AppProtocol_GRPC
	}
	name, _, _ = strings.Cut(name, "-")
	if known := namedProtocol(name); known != workloadapi.AppProtocol_UNKNOWN {
		return known
	}
	switch p.Port {
	case 25, 53, 3306, 27017: // SMTP, DNS, MySQL, MongoDB
		return workloadapi.AppProtocol_TCP
	}
	return workloadapi.AppProtocol_UNKNOWN
}

// namedProtocol reads the names of protocols that Istio knows.
func namedProtocol(name string) workloadapi.AppProtocol {
	switch strings.ToLower(name) {
	case "http", "http_proxy":
		return workloadapi.AppProtocol_HTTP11
	case "http2":
		return workloadapi.AppProtocol_HTTP2
	case "grpc", "grpc-web":
		return workloadapi.AppProtocol_GRPC
	case "tcp", "mongo", "mysql", "redis", "ssh":
		return workloadapi.AppProtocol_TCP
	case "tls", "https":
		return workloadapi.AppProtocol_TLS
	}
	return workloadapi.AppProtocol_UNKNOWN
}
