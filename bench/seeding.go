package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"millrace"
	"millrace/etl"
	"millrace/eventlog"
	"millrace/eventlog/broker"
	"millrace/ingest"
	"millrace/lake"
	"millrace/plan"
	"millrace/record"
)

// sources is how many applications share the log. The app reads the first one.
const sources = 4

// seeding compares a job that reads what the lake holds with one that reads the same from the log, each with an empty state and all rows
// published to Iceberg tables. The lake has the files that the job which fills it makes of a backlog.
func (c Config) seeding(ctx context.Context) (out []Measure, err error) {
	s := &seedingTrial{c: c, dir: filepath.Join(c.Dir, "seeding"), records: c.Records / 2}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	for _, share := range []struct {
		name    string
		sources int
	}{{"one application of four", 1}, {"all of four applications", sources}} {
		rate, cpu := map[bool][]float64{}, map[bool][]float64{}
		var ratio []float64
		for round := range c.Rounds + 1 {
			turn := map[bool]float64{}
			for _, seeded := range []bool{false, true} {
				took, err := s.turn(ctx, seeded, share.sources)
				if err != nil {
					return nil, err
				}
				n := float64(s.records * share.sources)
				turn[seeded] = n / took.wall.Seconds()
				c.Logger.Info("seeding", "from_lake", seeded, "applications", share.sources, "round", round, "wall", took.wall, "cpu", took.cpu)
				if round > 0 {
					rate[seeded] = append(rate[seeded], turn[seeded])
					cpu[seeded] = append(cpu[seeded], took.cpu.Seconds()*1e6/n)
				}
			}
			if round > 0 {
				ratio = append(ratio, turn[true]/turn[false])
			}
		}
		for _, seeded := range []bool{false, true} {
			what := readFrom(seeded) + ", " + share.name
			out = append(out, Measure{What: what, Unit: "records/s", Figure: newFigure(rate[seeded])}, Measure{What: what, Unit: "CPU µs/record", Figure: newFigure(cpu[seeded])})
		}
		out = append(out, Measure{What: timesFollowing(share.name), Unit: "times", Figure: newFigure(ratio)})
	}
	return out, nil
}

func readFrom(lake bool) string {
	if lake {
		return "seeded from the lake"
	}
	return "following the log"
}

func timesFollowing(share string) string {
	return "records/s of seeding ÷ of following the log, " + share
}

// seedingTrial is a log, and a lake that holds the same records.
type seedingTrial struct {
	c       Config
	dir     string
	records int // of each application
	made    int // jobs

	log     *eventlog.Log
	lake    *lake.Lake
	closers []func() error
}

func (s *seedingTrial) open(ctx context.Context) error {
	b, err := broker.Open(broker.Config{Dir: filepath.Join(s.dir, "log")})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, b.Close)
	if s.log, err = eventlog.Open(ctx, eventlog.Config{Brokers: []string{b.Addr()}}); err != nil {
		return err
	}
	s.closers = append(s.closers, s.log.Close)
	if s.lake, err = lake.Open(ctx, lake.Config{Dir: filepath.Join(s.dir, "lake")}); err != nil {
		return err
	}
	s.closers = append(s.closers, s.lake.Close)
	if err := s.fill(ctx); err != nil {
		return err
	}
	cfg := s.job(ingest.Plan("1.0.0"))
	cfg.Namespace = ingest.Namespace
	return s.run(ctx, cfg, int64(s.records*sources))
}

func (s *seedingTrial) close() error {
	var err error
	for i := len(s.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, s.closers[i]())
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// fill appends the records: a quarter of them descriptions of entities. The applications take turns, as they would.
func (s *seedingTrial) fill(ctx context.Context) error {
	l := newLoad(s.records / 4000 * 1000)
	var batch []record.Item
	for i := range s.records {
		var b []byte
		var m meta
		if i < l.keys {
			b, m = l.describe(nil, i)
		} else {
			b, m = l.next(nil)
		}
		for n := range sources {
			it := item(b, m, 0)
			it.Position = record.Position{}
			if n > 0 {
				it.Account, it.SourceType = fmt.Sprintf("%s%d", account, n), fmt.Sprintf("%s_%d", sourceType, n)
			}
			batch = append(batch, it)
		}
		if len(batch) < 4000 && i < s.records-1 {
			continue
		}
		if err := s.log.Append(ctx, batch); err != nil {
			return err
		}
		batch = batch[:0]
	}
	return nil
}

// job is a new instance.
func (s *seedingTrial) job(p *plan.Plan) millrace.JobConfig {
	s.made++
	i := millrace.Instance{Program: p.App, Account: "system", Env: "system", DataVersion: fmt.Sprintf("%014d", s.made)}
	return millrace.JobConfig{Instance: i, Plan: p, Dir: filepath.Join(s.dir, "jobs", i.UniqueID()), Log: s.log, Lake: s.lake, FlushBytes: lakeFlush}
}

// turn runs a new instance until it has read all there is, and has stopped.
func (s *seedingTrial) turn(ctx context.Context, seeded bool, applications int) (usage, error) {
	app := etl.App{Name: "bench", Version: "1.0.0", SourceTypes: []string{sourceType}, Tables: []etl.Transformer{quizSubmission(0)}}
	read := int64(s.records * sources) // a job that follows the log reads all, and skips what is not the app's
	if applications == sources {
		app.SourceTypes = nil
	} else if seeded {
		read = int64(s.records * applications)
	}
	p, err := app.Plan()
	if err != nil {
		return usage{}, err
	}
	cfg := s.job(p)
	if seeded {
		cfg.Seed = &plan.SeedRange{}
	}
	took, err := measure(func() error { return s.run(ctx, cfg, read) })
	return took, errors.Join(err, os.RemoveAll(cfg.Dir))
}

// run runs a job until it has read so many records and has published what that makes.
func (s *seedingTrial) run(ctx context.Context, cfg millrace.JobConfig, read int64) error {
	j, err := millrace.OpenJob(ctx, cfg)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- j.Run(running) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for err == nil {
		p := j.Progress()
		if p.Read == read && !p.Seeds() {
			stop()
			err = <-done
			break
		}
		if p.Read > read {
			err = fmt.Errorf("the job read %d of %d records", p.Read, read)
		}
		select {
		case <-tick.C:
		case runErr := <-done:
			return errors.Join(runErr, ctx.Err(), errors.New("the job stopped before it had read all records"), j.Close())
		}
	}
	for _, sink := range j.Progress().Sinks {
		if sink.PendingRows > 0 {
			err = errors.Join(err, fmt.Errorf("the job left %d rows unpublished", sink.PendingRows))
		}
	}
	return errors.Join(err, j.Close(), ctx.Err())
}
