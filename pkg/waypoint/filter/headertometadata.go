package filter

import (
	"errors"
	"fmt"
	"strconv"

	configv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_to_metadata/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

const headerToMetadataName = "envoy.filters.http.header_to_metadata"

// headerToMetadata keeps values of request fields as dynamic metadata.
type headerToMetadata struct{ rules []metadataRule }

type metadataRule struct {
	header           string
	cookie           string
	present, missing *metadataValue
	remove           bool
}

type metadataValue struct {
	namespace, key, value string
	rewrite               *matcher.Rewrite
	number                bool
}

func newHeaderToMetadata(_ string, config *anypb.Any) (Filter, error) {
	var c configv3.Config
	if err := config.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	if len(c.GetResponseRules()) > 0 {
		return nil, errors.New("response_rules are not supported")
	}
	f := &headerToMetadata{}
	for i, r := range c.GetRequestRules() {
		rule := metadataRule{header: r.GetHeader(), cookie: r.GetCookie(), remove: r.GetRemove()}
		var err error
		if rule.present, err = newMetadataValue(r.GetOnHeaderPresent()); err == nil {
			rule.missing, err = newMetadataValue(r.GetOnHeaderMissing())
		}
		if err == nil && rule.cookie != "" {
			err = errors.New("cookie is not supported")
		}
		if err != nil {
			return nil, fmt.Errorf("request_rules[%d]: %w", i, err)
		}
		f.rules = append(f.rules, rule)
	}
	return f, nil
}

func newMetadataValue(v *configv3.Config_KeyValuePair) (*metadataValue, error) {
	if v == nil {
		return nil, nil
	}
	out := &metadataValue{namespace: v.GetMetadataNamespace(), key: v.GetKey(), value: v.GetValue(), number: v.GetType() == configv3.Config_NUMBER}
	if out.namespace == "" {
		out.namespace = headerToMetadataName
	}
	switch {
	case v.GetType() == configv3.Config_PROTOBUF_VALUE:
		return nil, errors.New("type PROTOBUF_VALUE is not supported")
	case v.GetEncode() != configv3.Config_NONE:
		return nil, errors.New("encode is not supported")
	case v.GetRegexValueRewrite() != nil:
		var err error
		if out.rewrite, err = matcher.NewRewrite(v.GetRegexValueRewrite()); err != nil {
			return nil, fmt.Errorf("regex_value_rewrite: %w", err)
		}
	}
	return out, nil
}

// Request implements [Filter].
func (f *headerToMetadata) Request(x *Context) *Reply {
	for i := range f.rules {
		r := &f.rules[i]
		value, has := x.Request.Fields.Joined(r.header)
		switch {
		case has && r.present != nil:
			r.present.put(x.Info, value)
		case !has && r.missing != nil:
			r.missing.put(x.Info, "")
		}
		if has && r.remove {
			x.Request.Fields.Del(r.header)
		}
	}
	return nil
}

// put keeps the configured value, or else the field's. Metadata of a connection is the
// same for what follows on it.
func (v *metadataValue) put(i *streaminfo.Info, value string) {
	switch {
	case v.value != "":
		value = v.value
	case v.rewrite != nil:
		value = v.rewrite.Replace(value)
	}
	if value == "" {
		return
	}
	var kept any = value
	if v.number {
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return
		}
		kept = n
	}
	if i.Dynamic == nil {
		i.Dynamic = streaminfo.Metadata{}
	}
	if i.Dynamic[v.namespace] == nil {
		i.Dynamic[v.namespace] = map[string]any{}
	}
	i.Dynamic[v.namespace][v.key] = kept
}
