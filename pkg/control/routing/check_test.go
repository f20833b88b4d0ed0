package routing

import (
	"strings"
	"testing"
)

func TestHeaderError(t *testing.T) {
	for value, good := range map[string]bool{
		"plain": true, "100%%": true, "%REQ(x-a)%": true, "%REQ(x-a?x-b):10%": true, "a %DOWNSTREAM_REMOTE_ADDRESS% b": true, "%START_TIME%": true, "%START_TIME(%s)%": true,
		"50%": false, "%": false, "%NOPE%": false, "%REQ%": false, "%REQ()%": false, "%PROTOCOL(x)%": false, "%protocol%": false, "a\nb": false,
	} {
		if err := headerError("x-a", value); (err == nil) != good {
			t.Errorf("%q: %v", value, err)
		}
	}
	for _, name := range []string{":path", "a b", ""} {
		if headerError(name, "v") == nil {
			t.Errorf("header %q was taken", name)
		}
	}
}

func TestSubstitution(t *testing.T) {
	for with, good := range map[string]bool{`\1/\2`: true, `\0`: true, `\\x`: true, `plain`: true, `\3`: false, `\x`: false, `a\`: false} {
		if err := substitution("^/(a)/(b)$", with); (err == nil) != good {
			t.Errorf("%q: %v", with, err)
		}
	}
}

func TestPattern(t *testing.T) {
	for text, good := range map[string]bool{
		"": true, "/v[0-9]+/.*": true, "^(.*?;)?(user=jason)(;.*)?$": true, strings.Repeat("a", 5000): true,
		"([": false, "a{2000}": false, "(?=a)": false, `\p{Greek}{1000}`: false, strings.Repeat("(ab|cd).{500}", 10): false,
	} {
		if err := patternError(text); (err == nil) != good {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}
