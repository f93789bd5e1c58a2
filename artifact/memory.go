package artifact

import (
	"fmt"
	"os"
	"time"

	"millrace/internal/held"
)

// watch calls end when it holds more than it may. What it has not committed is as if it had not been done. It sees nothing where the
// system does not tell what a process holds.
func (m Memory) watch(end func(error)) {
	for range time.Tick(time.Second) {
		if n, err := held.Private(os.Getpid()); err == nil && n > m.Most {
			end(fmt.Errorf("the job's process held %d MB of memory, and may hold %d: start with a larger --memory", n/1e6, m.Most/1e6))
			return
		}
	}
}
