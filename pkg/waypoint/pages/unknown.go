package pages

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	// A filter that control planes send, and that has no effect here: it is shown.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
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
