package translate

import (
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// Translate is the whole of the package: objects in, resources and statuses out.
func Translate(in *source.Objects, opts Options) (Output, error) {
	if err := opts.validate(); err != nil {
		return Output{}, err
	}
	return Output{}, nil
}
