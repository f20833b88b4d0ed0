package tokenreview

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/token"
)

// answer is what was found out about a token.
type answer struct {
	caller token.Caller
	err    error // or nil: it proves caller
	until  time.Time
}

// answers are those of the latest tokens, by hash: no token is kept.
type answers struct {
	limit int

	// mu guards below.
	mu     sync.Mutex
	byKey  map[[sha256.Size]byte]*list.Element
	recent *list.List // of *kept, the latest used in front
}

type kept struct {
	key [sha256.Size]byte
	answer
}

func newAnswers(limit int) *answers {
	return &answers{limit: limit, byKey: map[[sha256.Size]byte]*list.Element{}, recent: list.New()}
}

func (a *answers) get(key [sha256.Size]byte, now time.Time) (answer, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.byKey[key]
	if !ok {
		return answer{}, false
	}
	k, _ := e.Value.(*kept)
	if !now.Before(k.until) {
		a.removeLocked(e, key)
		return answer{}, false
	}
	a.recent.MoveToFront(e)
	return k.answer, true
}

func (a *answers) put(key [sha256.Size]byte, n answer, now time.Time) {
	if !now.Before(n.until) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if e, ok := a.byKey[key]; ok {
		a.removeLocked(e, key)
	}
	a.byKey[key] = a.recent.PushFront(&kept{key, n})
	if last := a.recent.Back(); a.recent.Len() > a.limit {
		k, _ := last.Value.(*kept)
		a.removeLocked(last, k.key)
	}
}

func (a *answers) removeLocked(e *list.Element, key [sha256.Size]byte) {
	a.recent.Remove(e)
	delete(a.byKey, key)
}
