package webhook

import (
	"errors"
	"io"
	"net/http"
	"time"
)

const (
	// small is what of a review is read at once, in bytes: nearly all are smaller. Who is
	// slow to send one keeps a connection, and no turn of others.
	small = 64 << 10
	// largeAtOnce is how many of the others are read at a time, and largeTime how long the
	// rest of one may take: what it takes to fill the memory, anybody may send.
	largeAtOnce, largeShare = 8, 4
	largeTime               = 2 * time.Second
)

// read reads a review, or says why it cannot be.
func (h *Handler) read(w http.ResponseWriter, r *http.Request) (body []byte, code int, text string) {
	from := http.MaxBytesReader(w, r.Body, maxReview)
	body, err := io.ReadAll(io.LimitReader(from, small))
	if err == nil && len(body) == small {
		turn, full := take(r, h.large)
		if full != nil {
			return nil, http.StatusServiceUnavailable, "too many large reviews at once"
		}
		defer turn.End()
		// A writer that knows no deadlines is a test's.
		if late := http.NewResponseController(w).SetReadDeadline(time.Now().Add(largeTime)); late != nil && !errors.Is(late, http.ErrNotSupported) {
			return nil, http.StatusInternalServerError, late.Error()
		}
		var rest []byte
		rest, err = io.ReadAll(from)
		body = append(body, rest...)
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, http.StatusRequestEntityTooLarge, "the review is larger than 8 MiB"
	case err != nil:
		return nil, http.StatusBadRequest, "the review cannot be read: " + err.Error()
	}
	return body, 0, ""
}
