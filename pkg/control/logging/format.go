package logging

import (
	"cmp"
	"fmt"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	meshapi "istio.io/api/mesh/v1alpha1"
)

// fileLogger is the name of Envoy's logger to files.
const fileLogger = "envoy.access_loggers.file"

// textFormat is Istio's default.
const textFormat = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ` +
	`%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% ` +
	`%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" ` +
	`"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% ` +
	`%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%` + "\n"

// jsonFormat is Istio's default where accessLogEncoding is JSON.
var jsonFormat = map[string]any{
	"start_time": "%START_TIME%", "route_name": "%ROUTE_NAME%",
	"method": "%REQ(:METHOD)%", "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "protocol": "%PROTOCOL%",
	"response_code": "%RESPONSE_CODE%", "response_flags": "%RESPONSE_FLAGS%", "response_code_details": "%RESPONSE_CODE_DETAILS%",
	"connection_termination_details":    "%CONNECTION_TERMINATION_DETAILS%",
	"upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	"bytes_received":                    "%BYTES_RECEIVED%", "bytes_sent": "%BYTES_SENT%", "duration": "%DURATION%",
	"upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
	"x_forwarded_for":       "%REQ(X-FORWARDED-FOR)%", "user_agent": "%REQ(USER-AGENT)%", "request_id": "%REQ(X-REQUEST-ID)%",
	"authority": "%REQ(:AUTHORITY)%", "upstream_host": "%UPSTREAM_HOST%", "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
	"upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%", "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
	"downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%", "requested_server_name": "%REQUESTED_SERVER_NAME%",
}

// file is a logger to a file: in a provider's format, or with bySettings or without
// a provider in the one of the mesh's settings.
func (l *Logs) file(path string, p *meshapi.MeshConfig_ExtensionProvider_EnvoyFileAccessLogProvider, bySettings bool) (*accesslogv3.AccessLog, error) {
	format, err := l.format(p, bySettings)
	if err != nil {
		return nil, err
	}
	format.OmitEmptyValues = p.GetOmitEmptyValues()
	config := &anypb.Any{}
	logger := &filev3.FileAccessLog{Path: cmp.Or(path, stdout), AccessLogFormat: &filev3.FileAccessLog_LogFormat{LogFormat: format}}
	if err := anypb.MarshalFrom(config, logger, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, fmt.Errorf("encode the access log to %s: %w", path, err)
	}
	return &accesslogv3.AccessLog{Name: fileLogger, ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: config}}, nil
}

// format is what is written; in place of one that no proxy can read the default,
// which Status says.
func (l *Logs) format(p *meshapi.MeshConfig_ExtensionProvider_EnvoyFileAccessLogProvider, bySettings bool) (*corev3.SubstitutionFormatString, error) {
	switch f := p.GetLogFormat().GetLogFormat().(type) {
	case *meshapi.MeshConfig_ExtensionProvider_EnvoyFileAccessLogProvider_LogFormat_Text:
		if checkText(f.Text) != nil {
			return text(""), nil
		}
		return text(f.Text), nil
	case *meshapi.MeshConfig_ExtensionProvider_EnvoyFileAccessLogProvider_LogFormat_Labels:
		if len(f.Labels.GetFields()) > 0 && checkObject(f.Labels) == nil {
			return object(f.Labels), nil
		}
		return defaultObject()
	}
	own := l.mesh().GetAccessLogFormat()
	switch {
	case p != nil && !bySettings:
		return text(""), nil
	case l.mesh().GetAccessLogEncoding() == meshapi.MeshConfig_JSON:
		if fields, err := settingsObject(own); err == nil && own != "" {
			return object(fields), nil
		}
		return defaultObject()
	case checkText(own) != nil:
		return text(""), nil
	}
	return text(own), nil
}

// settingsObject is an accessLogFormat where the encoding is JSON.
func settingsObject(own string) (*structpb.Struct, error) {
	fields := &structpb.Struct{}
	if own == "" {
		return fields, nil
	}
	if err := protojson.Unmarshal([]byte(own), fields); err != nil {
		return nil, fmt.Errorf("it is no JSON object, which accessLogEncoding: JSON wants: %w", err)
	}
	return fields, checkObject(fields)
}

func defaultObject() (*corev3.SubstitutionFormatString, error) {
	fields, err := structpb.NewStruct(jsonFormat)
	if err != nil {
		return nil, fmt.Errorf("the default format: %w", err)
	}
	return object(fields), nil
}

// text is a format that ends in a line break; an empty one is the default.
func text(format string) *corev3.SubstitutionFormatString {
	if format == "" {
		format = textFormat
	}
	if !strings.HasSuffix(format, "\n") {
		format += "\n"
	}
	return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
		Specifier: &corev3.DataSource_InlineString{InlineString: format},
	}}}
}

func object(fields *structpb.Struct) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: fields}}
}
