package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"text/tabwriter"
	"time"

	"millrace/internal/held"
)

const (
	// soakRate is how many records a second the stack gets.
	soakRate = 1000

	// soakBatch is how many records are made at a time. Their bytes, 16 MB, are a part of what the process holds.
	soakBatch = 10 * soakRate

	// flatWithin is by how much the last third's mean may be above the middle third's for memory to count as flat.
	flatWithin = 0.05
)

// SoakSample is what the process and those of its jobs held at one moment.
type SoakSample struct {
	Seconds     float64 `json:"seconds"`
	Resident    int64   `json:"resident_bytes"`
	Heap        int64   `json:"heap_bytes"`     // of Go in the process that collects, dead objects included
	StateBytes  int64   `json:"state_bytes"`    // of all jobs, on disk
	OutboxBytes int64   `json:"outbox_bytes"`   // of all jobs, on disk
	Read        int64   `json:"records_read"`   // by the job that has read fewest
	Lag         int64   `json:"records_behind"` // of the job that is most behind
}

// SoakReport says whether memory grows, and stays within its bound.
type SoakReport struct {
	Machine Machine      `json:"machine"`
	Began   time.Time    `json:"began"`
	Rate    float64      `json:"records_per_second"`
	CPU     float64      `json:"cores_used"` // with the sensors
	Peak    int64        `json:"peak_resident_bytes"`
	Middle  int64        `json:"mean_resident_bytes_middle_third"`
	Last    int64        `json:"mean_resident_bytes_last_third"`
	Slope   float64      `json:"resident_bytes_per_hour"` // of the last two thirds, by least squares
	Flat    bool         `json:"flat"`
	Bound   int64        `json:"bound_resident_bytes"` // what Peak may be
	Samples []SoakSample `json:"samples"`
}

// Soak runs a stack at a steady rate, and watches what it holds.
func Soak(ctx context.Context, c Config, during time.Duration) (r SoakReport, err error) {
	c = c.withDefaults()
	if err := c.Check(); err != nil {
		return r, err
	}
	every := max(during/360, 100*time.Millisecond)
	if during < 10*every {
		return r, fmt.Errorf("a soak of %s is too short: want 1 s or more", during)
	}
	r = SoakReport{Machine: machine(), Began: time.Now().UTC(), Rate: soakRate, Bound: c.Memory}
	if c.Dir, err = os.MkdirTemp(c.Dir, "millrace-soak-"); err != nil {
		return r, fmt.Errorf("make a directory for the soak: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.Dir)) }()
	err = c.withStack(ctx, filepath.Join(c.Dir, "data"), func(ctx context.Context, s Stack, key string) error {
		posting, stop := context.WithTimeout(ctx, during)
		defer stop()
		var watching sync.WaitGroup
		var watchErr error
		watching.Go(func() {
			defer stop()
			watchErr = r.watch(posting, s, every, c)
		})
		took, err := measure(func() error {
			err := postFor(posting, s, key)
			if posting.Err() != nil && ctx.Err() == nil {
				err = nil // its time is up
			}
			stop() // memory at rest shows nothing
			watching.Wait()
			return err
		})
		r.CPU = took.cpu.Seconds() / took.wall.Seconds()
		return errors.Join(err, watchErr)
	})
	r.judge()
	return r, err
}

// postFor posts records at the rate until ctx ends.
func postFor(ctx context.Context, s Stack, key string) error {
	l := newLoad(described)
	for {
		w, err := newWindow(l, soakBatch, 0)
		if err != nil {
			return err
		}
		err = pace(ctx, s.CollectorURL(), key, w, 0, w.len(), soakRate, func(int, time.Time) {})
		if err := errors.Join(err, w.close()); err != nil {
			return err
		}
	}
}

// watch takes samples until ctx ends.
func (r *SoakReport) watch(ctx context.Context, s Stack, every time.Duration, c Config) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		m := SoakSample{Seconds: time.Since(began).Seconds()}
		var err error
		if m.Resident, err = held.All(os.Getpid()); err != nil {
			return err
		}
		r.Peak = max(r.Peak, m.Resident)
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		m.Heap = int64(mem.HeapAlloc)
		for i, p := range s.Jobs() {
			m.StateBytes, m.OutboxBytes, m.Lag = m.StateBytes+p.StateBytes, m.OutboxBytes+p.OutboxBytes, max(m.Lag, p.Lag)
			if i == 0 || p.Read < m.Read {
				m.Read = p.Read
			}
		}
		r.Samples = append(r.Samples, m)
		if len(r.Samples)%30 == 0 {
			c.Logger.Info("soak", "after", time.Since(began).Round(time.Second), "resident_mb", m.Resident>>20, "heap_mb", m.Heap>>20,
				"state_mb", m.StateBytes>>20, "behind", m.Lag)
		}
	}
}

func (r *SoakReport) judge() {
	n := len(r.Samples)
	if n < 6 {
		return
	}
	r.Middle, r.Last = meanResident(r.Samples[n/3:2*n/3]), meanResident(r.Samples[2*n/3:])
	r.Slope = 3600 * slope(r.Samples[n/3:])
	r.Flat = float64(r.Last) <= (1+flatWithin)*float64(r.Middle)
}

func meanResident(samples []SoakSample) int64 {
	sum := int64(0)
	for _, s := range samples {
		sum += s.Resident
	}
	return sum / int64(len(samples))
}

// slope is by how many bytes a second memory grows.
func slope(samples []SoakSample) float64 {
	var x, y, xx, xy float64
	n := float64(len(samples))
	for _, s := range samples {
		x, y = x+s.Seconds, y+float64(s.Resident)
		xx, xy = xx+s.Seconds*s.Seconds, xy+s.Seconds*float64(s.Resident)
	}
	return (n*xy - x*y) / (n*xx - x*x)
}

// Print writes the report as text: a dozen of its samples, and what they come to.
func (r SoakReport) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "AFTER s\tRESIDENT MB\tHEAP MB\tSTATE MB\tOUTBOX MB\tREAD\tBEHIND\t")
	step := max(len(r.Samples)/12, 1)
	for i := step - 1; i < len(r.Samples); i += step {
		s := r.Samples[i]
		fmt.Fprintf(w, "%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%d\t%d\t\n", s.Seconds, mega(s.Resident), mega(s.Heap), mega(s.StateBytes), mega(s.OutboxBytes), s.Read, s.Lag)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	flat := "flat"
	if !r.Flat {
		flat = "not flat"
	}
	_, err := fmt.Fprintf(out, "\n%s, %d cores, %s: %.0f records/s on %.2f cores with the sensors.\nMemory is %s: %.0f MB at most of %.0f MB, %.0f MB in the middle third, %.0f MB in the last, %+.1f MB an hour.\n",
		r.Machine.System, r.Machine.Cores, r.Machine.Go, r.Rate, r.CPU, flat, mega(r.Peak), mega(r.Bound), mega(r.Middle), mega(r.Last), r.Slope/1e6)
	return err
}

// Check returns an error that says by how much memory was over its bound.
func (r SoakReport) Check() error {
	if r.Peak <= r.Bound {
		return nil
	}
	return fmt.Errorf("the process held %.0f MB, and may hold %.0f MB; the samples say when", mega(r.Peak), mega(r.Bound))
}

func mega(bytes int64) float64 { return float64(bytes) / 1e6 }
