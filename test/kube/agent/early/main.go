// Command early connects in its first millisecond, and again and again, as an
// application may that knows nothing of a mesh. Each connection says a line that can
// be looked for on the wire. It prints what becomes of the first, and each change.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

func main() {
	last := ""
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		result := ask(os.Args[1], os.Args[2])
		if result != last {
			fmt.Println(result)
			last = result
		}
	}
}

// ask says a line to an echo server: "ok" when it came back.
func ask(address, line string) string {
	c, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return "refused: " + err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := fmt.Fprintln(c, line); err != nil {
		return "broken: " + err.Error()
	}
	back, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || strings.TrimSpace(back) != line {
		return fmt.Sprintf("broken: %q, %v", back, err)
	}
	return "ok"
}
