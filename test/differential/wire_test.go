package differential

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		if line != "" && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// readFields reads a head's fields, names in lower case, and the empty line.
func readFields(r *bufio.Reader) ([]field, error) {
	var out []field
	for {
		line, err := readLine(r)
		if err != nil {
			return out, err
		}
		if line == "" {
			return out, nil
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return out, fmt.Errorf("field %q", line)
		}
		out = append(out, field{strings.ToLower(name), strings.Trim(value, " \t")})
	}
}

// readBody reads a body as its fields frame it; toEnd: a body without a frame goes to
// the connection's end.
func readBody(r *bufio.Reader, fields []field, toEnd bool) (body string, trailers []field, err error) {
	length := valueOf(fields, "content-length")
	switch {
	case strings.EqualFold(valueOf(fields, "transfer-encoding"), "chunked"):
		return readChunks(r)
	case length != "":
		n, err := strconv.Atoi(length)
		if err != nil {
			return "", nil, err
		}
		b := make([]byte, n)
		got, err := io.ReadFull(r, b)
		return string(b[:got]), nil, err
	case toEnd:
		b, err := io.ReadAll(r)
		return string(b), nil, err
	}
	return "", nil, nil
}

func readChunks(r *bufio.Reader) (string, []field, error) {
	var b strings.Builder
	for {
		line, err := readLine(r)
		if err != nil {
			return b.String(), nil, err
		}
		size, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseInt(strings.TrimSpace(size), 16, 32)
		if err != nil {
			return b.String(), nil, fmt.Errorf("chunk size %q", line)
		}
		if n == 0 {
			trailers, err := readFields(r)
			return b.String(), trailers, err
		}
		if _, err := io.CopyN(&b, r, n); err != nil {
			return b.String(), nil, err
		}
		if line, err := readLine(r); err != nil || line != "" {
			return b.String(), nil, fmt.Errorf("no end of a chunk: %q %w", line, err)
		}
	}
}
