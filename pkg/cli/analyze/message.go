package analyze

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// Level is how bad a finding is; a greater one is worse.
type Level int

// The levels.
const (
	Info Level = iota
	Warning
	Error
)

var levels = []string{"Info", "Warning", "Error"}

func (l Level) String() string { return levels[l] }

// Set and Type make a Level a flag.
func (l *Level) Set(text string) error {
	i := slices.IndexFunc(levels, func(name string) bool { return strings.EqualFold(name, text) })
	if i < 0 {
		return fmt.Errorf("%q: want one of %v", text, levels)
	}
	*l = Level(i)
	return nil
}

// Type is the flag's kind in help.
func (l *Level) Type() string { return "Level" }

// Code names a kind of finding.
type Code string

// Istio's codes that are used here, by the names that Istio gives them.
const (
	ReferencedResourceNotFound  Code = "IST0101"
	SchemaValidationError       Code = "IST0106"
	ConflictingVirtualServices  Code = "IST0109"
	PortSelectorRequired        Code = "IST0112"
	PortName                    Code = "IST0118"
	NoMatchingWorkloads         Code = "IST0127"
	NoServerVerification        Code = "IST0128"
	NoServerVerificationForPort Code = "IST0129"
	UnreachableRule             Code = "IST0130"
	HostNotInGateway            Code = "IST0132"
	SchemaWarning               Code = "IST0133"
	AddressesRequired           Code = "IST0134"
	DeprecatedAnnotation        Code = "IST0135"
	IngressRulesNotAffected     Code = "IST0140"
	ConflictingGateways         Code = "IST0145"
	RelativeOperation           Code = "IST0151"
	ReplaceUsedWrongly          Code = "IST0152"
	EmptyProviders              Code = "IST0157"
	ConflictingTelemetries      Code = "IST0160"
	InvalidCredential           Code = "IST0161"
	NegativeCondition           Code = "IST0171"
	SubsetSelectsNoPods         Code = "IST0173"
	UnknownDestinationHost      Code = "IST0174"
)

// Codes of findings for which Istio has none; docs/analyze.md says more of each.
const (
	NotServed              Code = "FL0101"
	SameObjectTwice        Code = "FL0102"
	PrunedFields           Code = "FL0103"
	InjectionLabel         Code = "FL0104"
	NotDiscovered          Code = "FL0105"
	PrincipalRunsNowhere   Code = "FL0106"
	CookieSpace            Code = "FL0107"
	SubsetReplacesPolicy   Code = "FL0108"
	ProxyVersionIgnored    Code = "FL0109"
	AttemptsExceedTimeout  Code = "FL0110"
	NamespaceWideName      Code = "FL0111"
	TokensOptional         Code = "FL0112"
	ProviderUndefined      Code = "FL0113"
	MinHealthWithoutEffect Code = "FL0114"
	SidecarDropsPolicy     Code = "FL0115"
	StatsMatchNothing      Code = "FL0116"
	SamplingDiffers        Code = "FL0117"
	HeaderAsCredential     Code = "FL0118"
)

// Message is one finding.
type Message struct {
	Level Level
	Code  Code
	Ref   source.Ref
	// Position is where the fault is written; without a file the object is a cluster's.
	Position source.Position
	Text     string
}

// Origin is the object, and the place if it is in a file, as istioctl writes them.
func (m Message) Origin() string {
	object := strings.TrimSpace(m.Ref.String())
	if m.Position.File == "" {
		return object
	}
	return strings.TrimSpace(object + " " + m.Position.String())
}

// String is the line of the format log.
func (m Message) String() string {
	return fmt.Sprintf("%s [%s] (%s) %s", m.Level, m.Code, m.Origin(), m.Text)
}

// URL is where more is written about the code.
func (m Message) URL() string {
	code := strings.ToLower(string(m.Code))
	if strings.HasPrefix(code, "ist") {
		return "https://istio.io/latest/docs/reference/config/analysis/" + code + "/"
	}
	return "https://github.com/fairlead-mesh/fairlead/blob/main/docs/analyze.md#" + code
}

// compare puts the worst first, then by code and object, as istioctl does.
func (m Message) compare(o Message) int {
	return cmp.Or(cmp.Compare(o.Level, m.Level), cmp.Compare(m.Code, o.Code), strings.Compare(m.Position.File, o.Position.File),
		cmp.Compare(m.Position.Line, o.Position.Line), strings.Compare(m.Ref.String(), o.Ref.String()), strings.Compare(m.Text, o.Text))
}
