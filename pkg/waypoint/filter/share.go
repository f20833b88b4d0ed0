package filter

import (
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// share is a fraction of all requests.
type share struct{ numerator, denominator uint64 }

func newShare(p *typev3.FractionalPercent) share {
	d := uint64(100)
	switch p.GetDenominator() {
	case typev3.FractionalPercent_TEN_THOUSAND:
		d = 10_000
	case typev3.FractionalPercent_MILLION:
		d = 1_000_000
	}
	return share{uint64(p.GetNumerator()), d}
}

// runtimeShare is the default of a runtime fraction; all, where none is set.
func runtimeShare(p *corev3.RuntimeFractionalPercent) share {
	if p == nil {
		return share{1, 1}
	}
	return newShare(p.GetDefaultValue())
}

// draw tells whether a request is one of the share.
func (s share) draw(random uint64) bool {
	return s.numerator > 0 && random%s.denominator < s.numerator
}

// asked is the share that a request asks for in a field, at most s.
func (s share) asked(r *message.Request, field string) share {
	if n, err := strconv.ParseUint(r.Fields.Get(field), 10, 32); err == nil {
		s.numerator = min(s.numerator, n)
	}
	return s
}
