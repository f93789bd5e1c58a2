// Package millrace runs an app's jobs: it is where plans, the log, the index and the lake meet.
//
// The one idea: a job is given addresses, never implementations. The embedded broker and index speak the same protocols as Kafka
// and Elasticsearch, so a job on a laptop and a job in production differ in their Config's strings alone.
package millrace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"millrace/engine"
	"millrace/eventlog"
	"millrace/ingest"
	"millrace/lake"
	"millrace/plan"
	"millrace/sink"
	"millrace/sink/elastic"
	"millrace/sink/iceberg"
	"millrace/sink/topic"
	"millrace/source"
)

// Unversioned is the data version of an instance that has none: a singleton's.
const Unversioned = "unversioned"

// Instance is one namespace of an app's output.
type Instance struct {
	Program     string // the app's name: ingest-etl-edgenuity-lms-job
	Account     string // system, for an app that serves all tenants
	Env         string // system, likewise
	DataVersion string // 20180827174235, or Unversioned

	// Singleton says that the app has this one instance, in a namespace of the app's name. The instance of a versioned app that is Unversioned is
	// in the one that is called so.
	Singleton bool `json:",omitempty"`
}

// UniqueID is the instance's name everywhere: in metrics, directories and logs.
func (i Instance) UniqueID() string {
	return fmt.Sprintf("%s-%s-%s--%s", i.Program, i.Account, i.Env, i.DataVersion)
}

// Namespace is the instance's namespace in the lake, and of its topics.
func (i Instance) Namespace() string {
	switch {
	case i.Singleton:
		return "app_" + strings.ReplaceAll(i.Program, "-", "_")
	case i.DataVersion == Unversioned:
		return i.DataVersion
	}
	return "v" + i.DataVersion
}

// Suffix is what names of the instance's indices end with.
func (i Instance) Suffix() string {
	if i.Singleton {
		return i.Namespace()
	}
	return i.DataVersion
}

// JobConfig says what a job runs and where. What has no default is required.
type JobConfig struct {
	Instance Instance
	Plan     *plan.Plan
	Dir      string // of the job's state; made when absent

	Log       *eventlog.Log
	Lake      *lake.Lake
	Namespace string // of the job's tables in the lake; default: Instance.Namespace()
	IndexURL  string // of the index; empty for a job whose tables are all append-only
	BulkBytes int    // of one request to it; default that of elastic

	// Seed makes a job that has committed nothing begin with a range of the raw lake, and then follow the log from where that ends. Source types
	// that it does not name are the plan's. Default: the job begins with the oldest record of the log.
	Seed *plan.SeedRange

	TableTopics bool // publish the tables to topics of the log too: table.<namespace>.<table>

	Flush      time.Duration // how long rows gather for one lake snapshot; default 60 s
	FlushBytes int64         // or how many bytes of them, which are held in memory while they are written; default that of iceberg

	Savepoints string // folder of the instance's savepoints, whose snapshots the lake is asked to keep; default: none

	Workers int // threads that share the job's records; no result depends on it; default: one for each processor

	// What the engine holds in memory; defaults are those of engine.
	EpochBytes    int64 // input of one epoch
	CacheBytes    int64 // block cache of the state
	MemTableBytes int64 // memtable of the state

	Corrections int64 // bytes of records, before compression, that are kept to be corrected; default that of engine

	Logger     *slog.Logger          // default: discard
	Registerer prometheus.Registerer // default: no metrics
	Tracer     trace.Tracer          // default: no traces
}

// Job is one run of an instance on this machine.
type Job struct {
	*engine.Engine
	source *source.Source
	sinks  []sink.Sink

	seeding   bool           // when the last epoch was committed
	releasing sync.WaitGroup // the lake from what it held for the seeding
}

// OpenJob opens the job's state and its sinks. Close the job after Run.
func OpenJob(ctx context.Context, cfg JobConfig) (*Job, error) {
	id := cfg.Instance.UniqueID()
	if cfg.Namespace == "" {
		cfg.Namespace = cfg.Instance.Namespace()
	}
	if cfg.Registerer != nil {
		cfg.Registerer = prometheus.WrapRegistererWith(prometheus.Labels{"unique_id": id}, cfg.Registerer)
	}
	j := &Job{}
	fail := func(err error) (*Job, error) {
		return nil, errors.Join(fmt.Errorf("open job %s: %w", id, err), j.closeSinks())
	}
	// Sinks bring their targets up to the plan: one that is refused must not get there.
	if err := engine.CheckPlan(nil, cfg.Dir, id, cfg.Plan); err != nil {
		return fail(err)
	}
	toLake, err := iceberg.Open(ctx, iceberg.Config{
		Lake: cfg.Lake, Namespace: cfg.Namespace, Plan: cfg.Plan, Flush: cfg.Flush, FlushBytes: cfg.FlushBytes,
		Logger: cfg.Logger, Registerer: cfg.Registerer,
	})
	if err != nil {
		return fail(err)
	}
	j.sinks = append(j.sinks, toLake)
	if cfg.IndexURL != "" {
		toIndex, err := elastic.New(elastic.Config{
			URLs: []string{cfg.IndexURL}, Plan: cfg.Plan,
			Account: cfg.Instance.Account, Env: cfg.Instance.Env, DataVersion: cfg.Instance.DataVersion, Suffix: cfg.Instance.Suffix(),
			MaxBulkBytes: cfg.BulkBytes,
			Logger:       cfg.Logger, Registerer: cfg.Registerer,
		})
		if err != nil {
			return fail(err)
		}
		j.sinks = append(j.sinks, toIndex)
	}
	if cfg.TableTopics {
		toTopics, err := topic.Open(ctx, topic.Config{
			Log: cfg.Log, Namespace: cfg.Namespace, Instance: id, Plan: cfg.Plan, Logger: cfg.Logger, Registerer: cfg.Registerer,
		})
		if err != nil {
			return fail(err)
		}
		j.sinks = append(j.sinks, toTopics)
	}
	if j.source, err = source.New(cfg.source(id)); err != nil {
		return fail(err)
	}
	j.Engine, err = engine.Open(ctx, engine.Config{
		Dir: cfg.Dir, Plan: cfg.Plan, Instance: id, Job: cfg.Instance.Program, OnEpoch: j.release(cfg.Logger),
		Source: jobSource{j.source}, Sinks: j.sinks, Savepoints: cfg.Savepoints,
		Workers: cfg.Workers, MaxEpochBytes: int(cfg.EpochBytes), CacheBytes: cfg.CacheBytes, MemTableBytes: cfg.MemTableBytes, ExpiringLimit: cfg.Corrections,
		Logger: cfg.Logger, Registerer: cfg.Registerer, Tracer: cfg.Tracer,
	})
	if err != nil {
		return fail(err)
	}
	return j, nil
}

// source is what the job reads. The job that writes the raw lake cannot read what the log has lost from there.
func (cfg JobConfig) source(id string) source.Config {
	c := source.Config{Log: cfg.Log, Instance: id, Logger: cfg.Logger}
	if cfg.Namespace != ingest.Namespace {
		c.Lake, c.Namespace = cfg.Lake, ingest.Namespace
	}
	if cfg.Seed != nil {
		seed := *cfg.Seed
		if len(seed.SourceTypes) == 0 {
			seed.SourceTypes = cfg.Plan.SourceTypes
		}
		c.Seed = &seed
	}
	return c
}

// release lets go of what the lake holds for a seeding, once its end is committed. When that fails, the next start does it.
func (j *Job) release(logger *slog.Logger) func(engine.Progress) {
	return func(p engine.Progress) {
		ended := j.seeding && !p.Seeds()
		if j.seeding = p.Seeds(); !ended {
			return
		}
		j.releasing.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := j.source.Release(ctx); err != nil && logger != nil {
				logger.Warn("files that a seeding needed are still held; the next start lets go of them", "error", err)
			}
		})
	}
}

// Close releases the job's state and sinks. Call it when Run has returned.
func (j *Job) Close() error {
	j.releasing.Wait()
	return errors.Join(j.Engine.Close(), j.closeSinks())
}

func (j *Job) closeSinks() error {
	var errs []error
	for _, s := range j.sinks {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// jobSource is a source as the engine reads it.
type jobSource struct{ *source.Source }

func (s jobSource) Read(ctx context.Context, from plan.Position) (engine.Reader, error) {
	r, err := s.Source.Read(ctx, from)
	if err != nil {
		return nil, err
	}
	return reader{r}, nil
}

type reader struct{ *source.Reader }

func (r reader) Close() { _ = r.Reader.Close() } // nothing was written
