package pages

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	// What control planes send, and has no effect here: it is shown as it came.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
)

// types resolves the types of extensions. One that this binary does not know is a
// message without fields, so that it is shown by its name and what is around it whole.
type types struct{ *protoregistry.Types }

func (t types) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	found, err := t.Types.FindMessageByURL(url)
	if err != nil {
		return (&corev3.AggregatedConfigSource{}).ProtoReflect().Type(), nil //nolint:nilerr // as said
	}
	return found, nil
}
