// Package bench measures how fast the system is, and compares it with the floor: validating the same bytes once.
//
// The one idea: ratios of processor time, not rates. Floor and job run in turn in one process over the same records, so that a busy
// machine slows both; each figure is the median of several turns, beside the lowest and the highest, and the first turn is left out.
//
//	load ─▶ window of records ─▶ floor │ job │ floor      CPU of the job ÷ mean CPU of the floors
//
// It does not judge correctness beyond refusing figures of a job that did not do its work; that is for tests.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"millrace/etl"
)

// Parts are what can be measured alone.
var Parts = []string{partJob, partApp, partSteps, partSeeding, partCollector, partLatency}

const (
	partJob       = "job"     // a whole job with two joins
	partApp       = "app"     // the shipped app
	partSteps     = "steps"   // of a job, one by one
	partSeeding   = "seeding" // from the lake, beside following the log
	partCollector = "collector"
	partLatency   = "latency" // from event to searchable row
)

// workerCounts are measured each, with as many processors for Go code.
var workerCounts = []int{1, 2}

// Config says what to measure.
type Config struct {
	Dir        string                                               // for state and lake; what is made there is removed. Default: the system's temporary directory
	Keys       []int                                                // numbers of entities in the state, multiples of 1000; default 10⁵, 10⁶ and 10⁷
	Only       []string                                             // of Parts; default all
	Records    int                                                  // of one turn; default 200,000
	Turn       time.Duration                                        // how long a turn of what has no number of records is; default 5 s
	Rounds     int                                                  // turns that count; default 3
	Stack      func(ctx context.Context, dir string) (Stack, error) // opens what serve runs, in a directory; required
	Memory     int64                                                // bytes that a stack may hold, for SoakReport.Check
	CPUProfile io.Writer                                            // gets the profile of all measured jobs, each sample labelled with its setting; default: nowhere
	Logger     *slog.Logger                                         // says how far it is; default: discard

	profile *profiles
}

func (c Config) withDefaults() Config {
	if len(c.Keys) == 0 {
		c.Keys = []int{100_000, 1_000_000, 10_000_000}
	}
	if c.Records == 0 {
		c.Records = 200_000
	}
	if c.Turn == 0 {
		c.Turn = 5 * time.Second
	}
	if c.Rounds == 0 {
		c.Rounds = 3
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.profile = &profiles{}
	return c
}

// Check says what of c cannot be measured.
func (c Config) Check() error {
	if c.Stack == nil {
		return errors.New("no stack given to measure")
	}
	for _, name := range c.Only {
		if !slices.Contains(Parts, name) {
			return fmt.Errorf("there is no part %q to measure: want of %s", name, strings.Join(Parts, ", "))
		}
	}
	for _, k := range c.Keys {
		if k < 1000 || k%1000 != 0 {
			return fmt.Errorf("%d keys: want a multiple of 1000", k)
		}
	}
	return nil
}

// Machine is where the figures were measured.
type Machine struct {
	System string `json:"system"`
	Cores  int    `json:"cores"`
	Go     string `json:"go"`
	Commit string `json:"commit"` // of the program; empty when it was not built from a checkout
}

// Report is all that was measured.
type Report struct {
	Machine  Machine   `json:"machine"`
	Began    time.Time `json:"began"`
	Jobs     []Job     `json:"jobs"`
	Measures []Measure `json:"measures"`
	Goals    []Goal    `json:"goals"`
}

// Run measures.
func Run(ctx context.Context, c Config) (r Report, err error) {
	c = c.withDefaults()
	if err := c.Check(); err != nil {
		return r, err
	}
	r = Report{Machine: machine(), Began: time.Now().UTC()}
	if c.Dir, err = os.MkdirTemp(c.Dir, "millrace-bench-"); err != nil {
		return r, fmt.Errorf("make a directory for the benchmark: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.Dir)) }()
	for _, t := range c.trials() {
		jobs, measures, err := t.jobs(ctx)
		if err != nil {
			return r, err
		}
		r.Jobs, r.Measures = append(r.Jobs, jobs...), append(r.Measures, measures...)
	}
	for _, part := range []struct {
		name    string
		measure func(context.Context) ([]Measure, error)
	}{
		{partSteps, c.steps},
		{partSeeding, c.seeding},
		{partCollector, c.collector},
		{partLatency, c.latency},
	} {
		if !c.measures(part.name) {
			continue
		}
		measures, err := part.measure(ctx)
		if err != nil {
			return r, fmt.Errorf("measure %s: %w", part.name, err)
		}
		r.Measures = append(r.Measures, measures...)
	}
	r.Goals = goals(r)
	if c.CPUProfile != nil {
		return r, c.profile.write(c.CPUProfile)
	}
	return r, nil
}

// trials are the whole jobs: the app with two joins with all numbers of keys, the shipped one with one of them, about a million.
func (c Config) trials() (out []*trial) {
	if c.measures(partJob) {
		for _, keys := range c.Keys {
			out = append(out, &trial{c: c, app: twoJoins, keys: keys, corrections: []time.Duration{0, etl.DefaultCorrectFor}})
		}
	}
	if c.measures(partApp) {
		keys := slices.Sorted(slices.Values(c.Keys))
		at, _ := slices.BinarySearch(keys, 1_000_000)
		out = append(out, &trial{c: c, app: shipped, keys: keys[min(at, len(keys)-1)], corrections: []time.Duration{etl.DefaultCorrectFor}})
	}
	return out
}

func (c Config) measures(part string) bool { return len(c.Only) == 0 || slices.Contains(c.Only, part) }

func machine() Machine {
	m := Machine{System: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				m.Commit = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				m.Commit += ", changed"
			}
		}
	}
	return m
}
