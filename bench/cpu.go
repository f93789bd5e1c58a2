package bench

import (
	"encoding/json"
	"fmt"
	"syscall"
	"time"

	"millrace/record"
)

// usage is what something took.
type usage struct{ cpu, wall time.Duration }

// measure runs fn and returns the processor time, of user and system, that the whole process used meanwhile, and the time that passed.
func measure(fn func() error) (usage, error) {
	cpu, err := processorTime()
	if err != nil {
		return usage{}, err
	}
	began := time.Now()
	if err := fn(); err != nil {
		return usage{}, err
	}
	u := usage{wall: time.Since(began)}
	after, err := processorTime()
	u.cpu = after - cpu
	return u, err
}

func processorTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("read the process's processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// floor is what everything is compared with: validating the bytes of the same records, on one goroutine.
func floor(w *window) (usage, error) {
	return measure(func() error {
		for i := range w.len() {
			if err := record.Validate(w.bytes(i)); err != nil {
				return fmt.Errorf("record %d: %w", i, err)
			}
		}
		return nil
	})
}

// standardFloor is validating with the standard library: a yardstick that does not move when ours gets faster.
func standardFloor(w *window) (usage, error) {
	return measure(func() error {
		for i := range w.len() {
			if !json.Valid(w.bytes(i)) {
				return fmt.Errorf("record %d is no JSON", i)
			}
		}
		return nil
	})
}
