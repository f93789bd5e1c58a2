// Package held says how much memory processes hold. It knows that on Linux alone.
package held

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Private is what a process holds for itself alone, in bytes: without the program and other files, which processes share.
func Private(pid int) (int64, error) { return field(pid, "RssAnon") }

// All is what a process and its children hold, in bytes: of files what the process has in memory, as the children have the same.
func All(pid int) (int64, error) {
	sum, err := field(pid, "VmRSS")
	if err != nil {
		return 0, err
	}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // each thread has its own
	if err != nil {
		return 0, err
	}
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended, and its children are another's
		}
		for _, text := range strings.Fields(string(b)) {
			var child int
			if _, err := fmt.Sscan(text, &child); err != nil {
				return 0, fmt.Errorf("%s: %w", list, err)
			}
			if n, err := Private(child); err == nil { // else it has ended
				sum += n
			}
		}
	}
	return sum, nil
}

func field(pid int, name string) (bytes int64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read how much memory a process holds, which works on Linux: %w", err)
	}
	_, rest, _ := strings.Cut(string(status), "\n"+name+":")
	if _, err := fmt.Sscan(rest, &bytes); err != nil {
		return 0, fmt.Errorf("/proc/%d/status says no %s: %w", pid, name, err)
	}
	return bytes << 10, nil
}
