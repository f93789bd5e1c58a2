// Package artifact is what an executable that holds apps does as the process of one of their jobs.
//
// The one idea: a job is data. Spec says what to run, where its records come from and where its rows go, all by addresses, so whoever starts
// the process shares nothing with it but a folder and a socket (package control/local). What runs is the plan of an app that the executable
// itself holds: another version of the app is another executable.
//
// Secrets are in no spec: the process has them from its environment, which it inherits.
package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"millrace"
	"millrace/control/local"
	"millrace/eventlog"
	"millrace/internal/tracing"
	"millrace/lake"
	"millrace/plan"
)

// Spec says what the process of a job runs. What is not set has the default of millrace.JobConfig.
type Spec struct {
	Instance millrace.Instance `json:"instance"`
	Version  string            `json:"version"`    // of the app, which the executable must have
	Build    string            `json:"executable"` // tells one executable from another

	Dir        string          `json:"dir"`                  // of the job's state
	Savepoints string          `json:"savepoints,omitempty"` // folder of its savepoints
	Namespace  string          `json:"namespace,omitempty"`
	Seed       *plan.SeedRange `json:"seed,omitempty"`

	Brokers     []string          `json:"brokers"`
	Security    eventlog.Security `json:"security,omitzero"` // of the brokers
	IndexURL    string            `json:"index_url,omitempty"`
	Lake        Lake              `json:"lake"`
	TableTopics bool              `json:"table_topics,omitempty"`
	Flush       time.Duration     `json:"flush_ns"`
	Workers     int               `json:"workers,omitempty"`
	Memory      Memory            `json:"memory"`
	Corrections int64             `json:"corrections,omitempty"` // bytes, see engine.Config.ExpiringLimit

	LogFormat string         `json:"log_format,omitempty"` // text or json; default text
	LogLevel  slog.Level     `json:"log_level"`
	Traces    tracing.Config `json:"traces,omitzero"`
}

// Lake is where the lake is.
type Lake struct {
	Dir       string    `json:"dir"`
	Warehouse string    `json:"warehouse,omitempty"`
	S3        lake.S3   `json:"s3,omitzero"`
	Catalog   lake.REST `json:"catalog,omitzero"`
}

// Memory is what a process may hold, in bytes.
type Memory struct {
	Collected int64 `json:"collected"` // that the Go part aims to stay under; it is $GOMEMLIMIT when that is set
	Most      int64 `json:"most"`      // with which it ends, rather than that the machine's memory does; 0: it does not
	Cache     int64 `json:"cache"`
	MemTable  int64 `json:"mem_table"`
	Epoch     int64 `json:"epoch"`
	Fetch     int32 `json:"fetch"`
	Flush     int64 `json:"flush"`
	Bulk      int   `json:"bulk"`
}

// The variables that say who asks an Iceberg REST catalogue, or Kafka. Secrets are no flags: other users of the machine can read those.
const (
	TokenVariable      = "MILLRACE_LAKE_TOKEN"      // a bearer token
	CredentialVariable = "MILLRACE_LAKE_CREDENTIAL" // client id:client secret

	PasswordVariable = "MILLRACE_KAFKA_SASL_PASSWORD" // of the username for Kafka
)

// IndexVariable has the URL of the index for processes of jobs, when there is a password in it.
const IndexVariable = "MILLRACE_INDEX_URL"

// WithoutUser is a URL without who asks.
func WithoutUser(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.User == nil {
		return text
	}
	u.User = nil
	return u.String()
}

// index is the URL of the index, with who asks when the environment says that.
func (s Spec) index() string {
	if text := os.Getenv(IndexVariable); text != "" && WithoutUser(text) == s.IndexURL {
		return text
	}
	return s.IndexURL
}

// WithPassword is s with the password that the environment says.
func WithPassword(s eventlog.Security) eventlog.Security {
	s.Password = os.Getenv(PasswordVariable)
	return s
}

// WithSecrets is r with who asks, as the environment says.
func WithSecrets(r lake.REST) lake.REST {
	r.Token, r.Credential = os.Getenv(TokenVariable), os.Getenv(CredentialVariable)
	return r
}

// NewLogger logs in lines of key=value, or of JSON when the format is json.
func NewLogger(w io.Writer, level slog.Level, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// Run is the process of the job in a folder, from its start to its end. find returns the plan of an app, or an error when the executable does
// not have it.
func Run(ctx context.Context, dir string, find func(app string) (*plan.Plan, error)) error {
	return local.Serve(ctx, dir, func(ctx context.Context, text json.RawMessage) (local.Job, prometheus.Gatherer, error) {
		var spec Spec
		if err := json.Unmarshal(text, &spec); err != nil {
			return nil, nil, fmt.Errorf("what to run: %w", err)
		}
		p, err := find(spec.Instance.Program)
		if err != nil {
			return nil, nil, local.Final(err)
		}
		if p.Version != spec.Version {
			return nil, nil, local.Final(fmt.Errorf("this executable has version %s of %s, not %s", p.Version, p.App, spec.Version))
		}
		return spec.open(ctx, p, func(err error) { local.Abort(dir, err) })
	})
}

// job is a job with what it alone uses.
type job struct {
	*millrace.Job
	close []func() error // in the order to close
}

func (j *job) Progress() any { return j.Job.Progress() }

func (j *job) Close() error {
	var errs []error
	if j.Job != nil {
		errs = append(errs, j.Job.Close())
	}
	for i := len(j.close) - 1; i >= 0; i-- {
		errs = append(errs, j.close[i]())
	}
	return errors.Join(errs...)
}

// open opens the job. abort ends the process at once.
func (s Spec) open(ctx context.Context, p *plan.Plan, abort func(error)) (_ local.Job, _ prometheus.Gatherer, err error) {
	logger := NewLogger(os.Stderr, s.LogLevel, s.LogFormat).With("job", s.Instance.UniqueID())
	j := &job{}
	defer func() {
		if err != nil {
			err = errors.Join(err, j.Close())
		}
	}()
	s.Memory.apply(abort)
	registry := prometheus.NewRegistry()
	own := prometheus.WrapRegistererWith(prometheus.Labels{"unique_id": s.Instance.UniqueID()}, registry)
	own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	tracer, endTraces, err := tracing.Open(ctx, s.Traces, logger)
	if err != nil {
		return nil, nil, err
	}
	j.close = append(j.close, endTraces)
	log, err := eventlog.Open(ctx, eventlog.Config{Brokers: s.Brokers, Security: WithPassword(s.Security), FetchBytes: s.Memory.Fetch, Logger: logger, Registerer: own})
	if err != nil {
		return nil, nil, err
	}
	j.close = append(j.close, log.Close)
	tables, err := lake.Open(ctx, lake.Config{
		Dir: s.Lake.Dir, Warehouse: s.Lake.Warehouse, S3: s.Lake.S3, Catalog: WithSecrets(s.Lake.Catalog), Logger: logger, Registerer: own,
	})
	if err != nil {
		return nil, nil, err
	}
	j.close = append(j.close, tables.Close)
	j.Job, err = millrace.OpenJob(ctx, millrace.JobConfig{
		Instance: s.Instance, Plan: p, Dir: s.Dir, Log: log, Lake: tables, Namespace: s.Namespace, IndexURL: s.index(), BulkBytes: s.Memory.Bulk,
		Seed: s.Seed, TableTopics: s.TableTopics, Flush: s.Flush, FlushBytes: s.Memory.Flush, Savepoints: s.Savepoints,
		Workers: s.Workers, EpochBytes: s.Memory.Epoch, Corrections: s.Corrections, CacheBytes: s.Memory.Cache, MemTableBytes: s.Memory.MemTable,
		Logger: logger, Registerer: registry, Tracer: tracer,
	})
	if refused := (*plan.RefusedError)(nil); errors.As(err, &refused) {
		err = local.Final(err)
	}
	return j, registry, err
}

// apply bounds what the process holds. When the machine has no memory left, the system is to end a job, which is started again, and not what
// collects.
func (m Memory) apply(abort func(error)) {
	if os.Getenv("GOMEMLIMIT") == "" && m.Collected > 0 {
		debug.SetMemoryLimit(m.Collected)
	}
	const first = "500"                                                // of 1000: how gladly
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte(first), 0o600) // other systems have no such file
	if m.Most > 0 {
		go m.watch(abort)
	}
}
