package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocumentedCommandsExist holds that each line with fairlead in the documents' blocks
// of commands names a command with flags and arguments that it takes.
func TestDocumentedCommandsExist(t *testing.T) {
	names, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range append(names, "../../README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range strings.Split(string(text), "```") {
			if i%2 == 0 || !strings.HasPrefix(block, "sh\n") {
				continue
			}
			for line := range strings.SplitSeq(block, "\n") {
				line, _, _ = strings.Cut(line, " #")
				words := strings.Fields(strings.TrimPrefix(line, "bin/"))
				if len(words) == 0 || words[0] != "fairlead" {
					continue
				}
				found++
				if err := parses(words[1:]); err != nil {
					t.Errorf("%s: %s: %v", filepath.Base(name), strings.TrimSpace(line), err)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("%d commands are documented: the test looks at the wrong place", found)
	}
}

// parses tells whether a call is one that the command line takes.
func parses(args []string) error {
	for i, a := range args {
		if a == "|" || a == ">" || a == "||" || a == "&&" {
			args = args[:i] // the rest is the shell's
			break
		}
	}
	cmd, rest, err := newRoot().Find(args)
	if err != nil {
		return err
	}
	if cmd.DisableFlagParsing {
		return nil
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}
