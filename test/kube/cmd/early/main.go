// Command early connects in its first millisecond, and again and again, as an
// application may that knows nothing of a mesh: each connection says a line that is
// looked for on the wire. It prints what becomes of the first, and each change.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// Secret is what must not be seen in clear.
const secret = "early-bird-in-clear"

func main() {
	begin := time.Now()
	last := ""
	for {
		result := ask(os.Args[1])
		if result != last {
			fmt.Printf("%s after %s: %s\n", time.Now().UTC().Format(time.RFC3339Nano), time.Since(begin).Round(10*time.Microsecond), result)
			last = result
		}
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // its pace
	}
}

func ask(address string) string {
	c, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := fmt.Fprintln(c, secret); err != nil {
		return err.Error()
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return "ok " + strings.TrimSpace(line)
}
