package tokenreview

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fairlead-mesh/fairlead/pkg/token"
)

// plausible reads a token's own text, of which nothing is believed: what could never
// be taken is not sent to the API server. It returns when the token ends.
func plausible(bearer string, now time.Time) (time.Time, error) {
	if len(bearer) > maxToken {
		return time.Time{}, fmt.Errorf("token of %d bytes; at most %d are taken", len(bearer), maxToken)
	}
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(bearer, &claims); err != nil {
		return time.Time{}, fmt.Errorf("token: %w", err)
	}
	switch {
	case claims.ExpiresAt == nil:
		return time.Time{}, errors.New("token: it never ends; the secret of a service account is no proof here, mount a projected serviceAccountToken")
	case !now.Before(claims.ExpiresAt.Time):
		return time.Time{}, fmt.Errorf("token: it ended at %s", claims.ExpiresAt.UTC().Format(time.RFC3339))
	case !slices.Contains(claims.Audience, token.Audience):
		return time.Time{}, fmt.Errorf("token: it is meant for %q, not for %s", []string(claims.Audience), token.Audience)
	}
	return claims.ExpiresAt.Time, nil
}
