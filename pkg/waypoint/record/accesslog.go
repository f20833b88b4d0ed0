package record

import (
	"fmt"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"

	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/format"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// defaultFormat is Envoy's.
const defaultFormat = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"` + "\n"

// logger writes a line for each exchange.
type logger struct {
	text   *format.Format
	json   *format.JSON
	filter filter
	lines  *telemetry.LineWriter
}

var _ hcm.Recorder = (*logger)(nil)

func (l *logger) fileFormat(c *filev3.FileAccessLog) (err error) {
	switch f := c.GetAccessLogFormat().(type) {
	case *filev3.FileAccessLog_LogFormat:
		return l.setFormat(f.LogFormat)
	case *filev3.FileAccessLog_Format:
		l.text, err = format.Compile(f.Format) //nolint:staticcheck // still sent
	case *filev3.FileAccessLog_JsonFormat:
		l.json, err = format.CompileJSON(f.JsonFormat, false) //nolint:staticcheck // still sent
	case *filev3.FileAccessLog_TypedJsonFormat:
		l.json, err = format.CompileJSON(f.TypedJsonFormat, false) //nolint:staticcheck // still sent
	default:
		l.text, err = format.Compile(defaultFormat)
	}
	return err
}

func (l *logger) setFormat(f *corev3.SubstitutionFormatString) (err error) {
	switch s := f.GetFormat().(type) {
	case nil:
		l.text, err = format.Compile(defaultFormat)
	case *corev3.SubstitutionFormatString_JsonFormat:
		l.json, err = format.CompileJSON(s.JsonFormat, f.GetOmitEmptyValues())
	case *corev3.SubstitutionFormatString_TextFormat:
		l.text, err = format.Compile(s.TextFormat) //nolint:staticcheck // still sent
	case *corev3.SubstitutionFormatString_TextFormatSource:
		l.text, err = format.Compile(s.TextFormatSource.GetInlineString())
	}
	if err != nil {
		return fmt.Errorf("log_format: %w", err)
	}
	return nil
}

// Record implements [hcm.Recorder].
func (l *logger) Record(i *streaminfo.Info) {
	if l.filter != nil && !l.filter(i) {
		return
	}
	line := scratch.Get().(*[]byte)
	if l.json != nil {
		*line = append(l.json.Append((*line)[:0], i), '\n')
	} else {
		*line = l.text.Append((*line)[:0], i)
	}
	l.lines.Write(*line)
	if cap(*line) <= maxScratch {
		scratch.Put(line)
	}
}

// scratch are buffers that lines are made in. One that a long line made large is not
// kept.
var scratch = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

const maxScratch = 16 << 10
