package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// readyWithin is how long a part may take to answer before it is not ready.
	readyWithin = 3 * time.Second

	// beginWithin is how long a sink may take to begin before it is not ready: a new data version does not make the stack unready.
	beginWithin = 10 * time.Second
)

// ready says which parts of the stack cannot do their work, one in each line; nil when all can: log, lake and index answer, no job has failed,
// and every sink has begun after a moment. What is suspended has nothing to do.
func (s *stack) ready(ctx context.Context) error {
	parts := []struct {
		name string
		ask  func(context.Context) error
	}{
		{"log", func(ctx context.Context) error { _, err := s.log.Ends(ctx); return err }},
		{"lake", func(ctx context.Context) error { _, err := s.lake.Tables(ctx); return err }},
		{"index", s.index.Ping},
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	problems := make([]error, len(parts))
	var asked sync.WaitGroup
	for i, p := range parts {
		asked.Go(func() {
			if err := p.ask(ctx); err != nil {
				problems[i] = fmt.Errorf("%s: %w", p.name, err)
			}
		})
	}
	asked.Wait()
	for _, j := range s.jobs() {
		id := j.instance.UniqueID()
		if err := j.failure(); err != nil {
			problems = append(problems, fmt.Errorf("job %s has failed: %w", id, err))
			continue
		}
		if !j.works() || j.runsFor() < beginWithin {
			continue
		}
		for _, sink := range j.Progress().Sinks {
			if !sink.Begun {
				problems = append(problems, fmt.Errorf("job %s: sink %s has not begun: its target does not answer, or takes back what a restore asks for", id, sink.Name))
			}
		}
	}
	return errors.Join(problems...)
}
