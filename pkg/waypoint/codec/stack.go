package codec

// exchangeStack is about what an exchange takes of a stack, in bytes.
const exchangeStack = 5 << 10

// deepen grows a new goroutine's stack at once to what an exchange takes, while there
// is little on it to be moved. Left to itself it doubles twice, each time with more
// frames to adjust: a seventh of what a small request costs.
//
//go:noinline
func deepen(at uint8) byte {
	var room [exchangeStack]byte
	room[at] = 1
	return room[at>>1]
}
