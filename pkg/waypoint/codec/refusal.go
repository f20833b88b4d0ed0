package codec

import (
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// Refusal is the end of a request that never became an exchange.
type Refusal struct {
	// Err is why.
	Err error
	// Began is when its first byte came, or zero: just now.
	Began time.Time
	// Response is the answer, which may be added to. Its status is 0 where nothing is
	// answered: the client went away in the middle of a head.
	Response message.Response
	// Body is the response's, of text; it may be changed.
	Body string
}

// refused tells of a refusal whoever wants to know, and what is to be answered.
func (o *Options) refused(r *Refusal) {
	if o.Refused != nil {
		o.Refused(r)
	}
}
