// Package suggest finds what a mistyped word was meant to be.
//
// For any package.
package suggest

import "strings"

// longest is the length past which nobody mistypes a known word.
const longest = 64

// Nearest is the candidate that word was most likely meant to be, or "".
func Nearest(word string, candidates []string) string {
	best, distance := "", max(2, len(word)/3)+1
	for _, c := range candidates {
		if d := apart(strings.ToLower(word), strings.ToLower(c)); d < distance || d == distance && best != "" && c < best {
			best, distance = c, d
		}
	}
	return best
}

// DidYouMean is the end of a message, or "".
func DidYouMean(word string, candidates []string) string {
	if s := Nearest(word, candidates); s != "" {
		return `; did you mean "` + s + `"?`
	}
	return ""
}

// apart is the number of letters to put in, take away or change.
func apart(a, b string) int {
	if len(a) > longest || len(b) > longest {
		return max(len(a), len(b))
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
