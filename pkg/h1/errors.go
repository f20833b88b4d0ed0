package h1

// Error is a message that breaks the protocol or a limit.
type Error struct {
	// Status is what a server answers before it closes: 400, 426, 431 or 501. A
	// client takes any as a protocol error of its server's.
	Status int
	Reason string
}

func (e *Error) Error() string { return "HTTP/1: " + e.Reason }

func bad(reason string) *Error { return &Error{Status: 400, Reason: reason} }

// What is wrong with a message. They are values, so that hostile input does not
// make garbage.
var (
	errHeadTooLarge  = &Error{Status: 431, Reason: "the head is larger than the limit"}
	errTooManyFields = &Error{Status: 431, Reason: "more fields than the limit"}
	errBareLF        = bad("a line ends in LF without CR")
	errNotHTTP       = bad("not the start of an HTTP/1 message")
	errRequestLine   = bad("the request line is not method, target and version with one space between (RFC 9112 section 3)")
	errMethod        = bad("unknown method")
	errTarget        = bad("the request target has no valid form (RFC 9112 section 3.2)")
	errVersion       = &Error{Status: 426, Reason: "the version is neither HTTP/1.1 nor HTTP/1.0"}
	errStatusLine    = bad("the status line is not version, three digits and a reason (RFC 9112 section 4)")
	errFold          = bad("a folded field line (RFC 9112 section 5.2)")
	errFieldName     = bad("a field name is empty, has a character that is not allowed, or no colon right behind it (RFC 9112 section 5.1)")
	errFieldValue    = bad("a field value has a control character (RFC 9110 section 5.5)")
	errNoHost        = bad("HTTP/1.1 without a Host field")
	errHosts         = bad("more than one Host field")
	errAuthority     = bad("the authority is not a host with an optional port")
	errLength        = bad("the Content-Length is no number")
	errLengths       = bad("more than one Content-Length")
	errLengthAndTE   = bad("both Content-Length and Transfer-Encoding")
	errTENotChunked  = bad("the Transfer-Encoding does not end in one chunked")
	errTEUnknown     = &Error{Status: 501, Reason: "a transfer coding other than chunked"}
	errTEInHTTP10    = bad("Transfer-Encoding in HTTP/1.0")
	errConnection    = bad("the Connection field names one that is not the connection's")
	errConnectBody   = bad("CONNECT with a body")
	errNoBodyAllowed = bad("a body where the status allows none")
	errSwitch        = bad("101 to a request that did not ask for it")
	errChunk         = bad("a chunk does not begin with its size and CRLF, or does not end in CRLF (RFC 9112 section 7.1)")
	errChunkSize     = bad("a chunk's size is too large")
	errChunkLine     = bad("a chunk's extensions are longer than the limit")
	errUnsendable    = bad("a field or target has a character that cannot be sent")
)
