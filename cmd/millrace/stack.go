package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"millrace"
	"millrace/apps/lms"
	"millrace/collect"
	"millrace/control"
	"millrace/delivery"
	"millrace/delivery/catalog"
	"millrace/eventlog"
	"millrace/eventlog/broker"
	"millrace/index"
	"millrace/ingest"
	"millrace/lake"
	"millrace/plan"
	"millrace/web"
)

// stackConfig says what a stack is made of.
type stackConfig struct {
	dir         *dataDir
	listen      string        // of collector and console
	prefix      string        // path of the collector
	logListen   string        // of the embedded broker
	indexListen string        // of the embedded index
	brokers     []string      // of a real cluster; empty: the embedded broker
	indexURL    string        // of a real index; empty: the embedded one
	warehouse   string        // of the lake; empty: where it is, for a new one in the data directory
	s3          lake.S3       // how an s3:// warehouse is reached
	flush       time.Duration // of the lake
	memory      int64         // MB that the process may hold
	tableTopics bool          // whether the ETL job's tables go to topics of the log too
	logger      *slog.Logger
}

func (c stackConfig) shares() shares { return divide(c.memory * 1e6) }

// parts are the files that the stack keeps in its directory.
func (c stackConfig) parts() []part {
	parts := []part{{name: "keys.db", what: "the sensor keys"}, {name: "lake/catalog.db", what: "the catalogue of the lake"}}
	if len(c.brokers) == 0 {
		parts = append(parts, part{"log", "the embedded log", "--brokers"})
	}
	if c.indexURL == "" {
		parts = append(parts, part{"index.duckdb", "the embedded index", "--index-url"})
	}
	return parts
}

// stack is everything that runs in one process, each part reached by its protocol:
//
//	sensor ─▶ collector ─▶ broker ─┬─▶ crusher-prime-job ─▶ lake: raw
//	                               └─▶ ETL jobs ─▶ index, lake ◀─ console
type stack struct {
	cfg       stackConfig
	registry  *prometheus.Registry
	started   time.Time
	closers   []func() error // in the order to close
	listener  net.Listener
	logAddr   string
	indexAddr string
	log       *eventlog.Log
	keys      *control.Keys
	tokens    *control.Tokens
	collector *collect.Collector
	lake      *lake.Lake
	index     *delivery.Index
	catalog   *catalog.Catalog
	console   *web.Server
	raw, etl  *stackJob
}

// stackJob is a job of the stack and what became of it.
type stackJob struct {
	*millrace.Job
	plan     *plan.Plan
	instance millrace.Instance

	mu  sync.Mutex
	err error
}

func (j *stackJob) failure() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// system is the tenant of apps that serve all tenants.
const system = "system"

func openStack(ctx context.Context, cfg stackConfig) (s *stack, err error) {
	s = &stack{cfg: cfg, registry: prometheus.NewRegistry(), started: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err = cfg.dir.checkDisk(); err != nil {
		return s, err
	}
	if err = cfg.dir.settle(placeOf(len(cfg.brokers) == 0), placeOf(cfg.indexURL == ""), cfg.tableTopics); err != nil {
		return s, err
	}
	if err = cfg.dir.checkParts(cfg.parts()...); err != nil {
		return s, err
	}
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if s.listener, err = listen(cfg.listen, "--listen"); err != nil {
		return s, err
	}
	s.onClose(func() error { return ignoreClosed(s.listener.Close()) })
	if err = s.openLog(ctx); err != nil {
		return s, err
	}
	if err = s.openIndex(); err != nil {
		return s, err
	}
	if s.keys, err = control.OpenKeys(cfg.dir.join("keys.db")); err != nil {
		return s, err
	}
	s.onClose(s.keys.Close)
	if s.tokens, err = control.OpenTokens(cfg.dir.join("keys.db")); err != nil {
		return s, err
	}
	s.onClose(s.tokens.Close)
	if s.lake, err = s.openLake(ctx); err != nil {
		return s, err
	}
	s.onClose(s.lake.Close)
	if s.catalog, err = catalog.New(catalog.Config{Lake: s.lake, Authorize: s.authorize, Logger: cfg.logger}); err != nil {
		return s, err
	}
	if err = s.openJobs(ctx); err != nil {
		return s, err
	}
	s.collector, err = collect.New(collect.Config{Log: s.log, Keys: s.sensorKey, Prefix: cfg.prefix, Logger: cfg.logger, Registerer: s.registry})
	if err != nil {
		return s, err
	}
	s.console, err = web.New(web.Config{
		Status: s.status, Rows: s.newestRows, DeadLetters: s.deadLetters, LakeStats: s.lakeStats, Ready: s.ready, Logger: cfg.logger,
	})
	if err != nil {
		return s, err
	}
	return s, writeJSON(cfg.dir.join("running.json"), running{
		PID: os.Getpid(), Listen: s.listener.Addr().String(), Log: s.logAddr, Index: s.indexAddr,
	})
}

// sensorKey finds what the items that come with a sensor key belong to.
func (s *stack) sensorKey(ctx context.Context, secret string) (collect.Key, error) {
	k, err := s.keys.Lookup(ctx, secret)
	if errors.Is(err, control.ErrUnknownKey) {
		err = collect.ErrUnknownKey
	}
	return collect.Key{Account: k.Account, Env: k.Env, SourceType: k.SourceType}, err
}

// authorize returns an error unless a token may read the lake's tables.
func (s *stack) authorize(ctx context.Context, token string) error {
	_, err := s.tokens.Lookup(ctx, token)
	if errors.Is(err, control.ErrUnknownToken) {
		err = catalog.ErrUnknownToken
	}
	return err
}

func placeOf(isEmbedded bool) place {
	if isEmbedded {
		return embedded
	}
	return external
}

func (s *stack) onClose(fn func() error) { s.closers = append(s.closers, fn) }

func (s *stack) openLog(ctx context.Context) (err error) {
	brokers := s.cfg.brokers
	if len(brokers) == 0 {
		if err := checkAddress(s.cfg.logListen, "--log-listen"); err != nil {
			return err
		}
		b, err := broker.Open(broker.Config{Dir: s.cfg.dir.join("log"), Listen: s.cfg.logListen, Logger: s.cfg.logger})
		var busy *broker.ListenError
		if errors.As(err, &busy) {
			return listenError(busy.Listen, "--log-listen", busy.Err)
		}
		if err != nil {
			return err
		}
		s.onClose(b.Close)
		brokers = []string{b.Addr()}
	}
	s.logAddr = brokers[0]
	if s.log, err = eventlog.Open(ctx, eventlog.Config{Brokers: brokers, FetchBytes: s.cfg.shares().fetch, Logger: s.cfg.logger, Registerer: s.registry}); err != nil {
		if len(s.cfg.brokers) > 0 {
			err = fmt.Errorf("--brokers %s: %w", strings.Join(brokers, ","), err)
		}
		return err
	}
	s.onClose(s.log.Close)
	return nil
}

func (s *stack) openIndex() (err error) {
	s.indexAddr = s.cfg.indexURL
	if s.indexAddr == "" {
		srv, err := index.Open(index.Config{Path: s.cfg.dir.join("index.duckdb"), MemoryLimit: s.cfg.shares().index, Logger: s.cfg.logger, Registerer: s.registry})
		if err != nil {
			return err
		}
		s.onClose(srv.Close)
		l, err := listen(s.cfg.indexListen, "--index-listen")
		if err != nil {
			return err
		}
		server := &http.Server{Handler: srv, ReadHeaderTimeout: 10 * time.Second}
		done := make(chan error, 1)
		go func() { done <- server.Serve(l) }()
		s.onClose(func() error { return errors.Join(server.Close(), ignoreClosed(<-done)) })
		s.indexAddr = "http://" + l.Addr().String()
	}
	s.index, err = delivery.NewIndex(s.indexAddr)
	return err
}

func (s *stack) openLake(ctx context.Context) (*lake.Lake, error) {
	return lake.Open(ctx, lake.Config{
		Dir: s.cfg.dir.join("lake"), Warehouse: s.cfg.warehouse, S3: s.cfg.s3, Logger: s.cfg.logger, Registerer: s.registry,
	})
}

func (s *stack) openJobs(ctx context.Context) (err error) {
	etlPlan, err := lms.App.Plan()
	if err != nil {
		return err
	}
	if s.raw, err = s.openJob(ctx, ingest.Plan(version), ingest.Namespace, ""); err != nil {
		return err
	}
	if s.etl, err = s.openJob(ctx, etlPlan, "", s.indexAddr); err != nil {
		return err
	}
	if err := s.cfg.dir.haveJobs(s.raw.instance.UniqueID(), s.etl.instance.UniqueID()); err != nil {
		return err
	}
	return s.registry.Register(jobCounters{s.raw, s.etl})
}

func (s *stack) openJob(ctx context.Context, p *plan.Plan, namespace, indexURL string) (*stackJob, error) {
	i, memory := instanceOf(p), s.cfg.shares()
	j, err := millrace.OpenJob(ctx, millrace.JobConfig{
		Instance: i, Plan: p, Dir: s.cfg.dir.join("jobs", i.UniqueID()), Savepoints: s.cfg.dir.join(savepointsDir, i.UniqueID()),
		Log: s.log, Lake: s.lake, Namespace: namespace, IndexURL: indexURL, TableTopics: s.cfg.dir.head.TableTopics && indexURL != "",
		Flush: s.cfg.flush, FlushBytes: memory.flush, BulkBytes: memory.bulk, EpochBytes: memory.epoch, CacheBytes: memory.cache, MemTableBytes: memory.memTable,
		Logger: s.cfg.logger, Registerer: s.registry,
	})
	if err != nil {
		return nil, err
	}
	s.onClose(j.Close)
	return &stackJob{Job: j, plan: p, instance: i}, nil
}

// instanceOf is the one instance of an app that a stack runs.
func instanceOf(p *plan.Plan) millrace.Instance {
	return millrace.Instance{Program: p.App, Account: system, Env: system, DataVersion: millrace.Unversioned}
}

// Run serves until ctx ends. Then the collector finishes the requests it has begun, and the jobs read what is in the log, for five
// seconds at most, commit it and publish it: a stack that was stopped is at rest, unless it was behind. A job that fails does not end
// Run: what sensors send is still collected, and the job goes on from its last commit at the next start.
func (s *stack) Run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	for _, path := range s.collector.Paths() {
		mux.Handle(path, s.collector)
	}
	mux.Handle(catalog.Path, s.catalog)
	mux.Handle("/", s.console)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}

	working, stopJobs := context.WithCancel(context.WithoutCancel(ctx)) // jobs outlive ctx until they have read the rest
	defer stopJobs()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ignoreClosed(server.Serve(s.listener)) })
	g.Go(func() error { return s.console.Run(ctx) })
	g.Go(func() error { return s.cfg.dir.watchDisk(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		defer stopJobs()
		return s.windDown(context.WithoutCancel(ctx), server)
	})
	for _, j := range []*stackJob{s.raw, s.etl} {
		g.Go(func() error {
			if err := j.Run(working); err != nil {
				s.cfg.logger.Error("job failed; when the cause is removed it goes on from its last commit at the next start", "instance", j.instance.UniqueID(), "error", err)
				j.mu.Lock()
				j.err = err
				j.mu.Unlock()
			}
			return nil
		})
	}
	return g.Wait()
}

// windDown ends the requests and waits until the jobs have read what they brought.
func (s *stack) windDown(ctx context.Context, server *http.Server) error {
	// Requests that were begun may take as long as their own time limits; those that have not ended then are cut off, and their
	// sensors have no answer.
	ending, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := server.Shutdown(ending); err != nil {
		if err := ignoreClosed(server.Close()); err != nil {
			return err
		}
	}
	reading, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := s.untilRead(reading); err != nil {
		s.cfg.logger.Warn("stopped before the jobs had read the log; they go on at the next start", "error", err)
	}
	return nil
}

// sayStopping says what the end of Run waits for, at once and every two seconds until it has ended.
func (s *stack) sayStopping(w io.Writer, ended <-chan struct{}) {
	fmt.Fprintln(w, "millrace: stopping: requests end, jobs read the rest of the log, and what they have committed is published")
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
			fmt.Fprintf(w, "millrace: still stopping: %s; a second signal ends at once, and nothing is lost\n", s.unfinished())
		}
	}
}

// unfinished is what the jobs have yet to do, for people.
func (s *stack) unfinished() string {
	var what []string
	for _, j := range []*stackJob{s.raw, s.etl} {
		if j.failure() != nil {
			continue
		}
		p, name := j.Progress(), j.instance.Program
		if p.Lag > 0 {
			what = append(what, fmt.Sprintf("%s has %d records to read", name, p.Lag))
		}
		for _, sink := range p.Sinks {
			switch {
			case !sink.Begun:
				what = append(what, fmt.Sprintf("sink %s of %s does not answer", sink.Name, name))
			case sink.PendingRows > 0:
				what = append(what, fmt.Sprintf("sink %s of %s has %d rows to publish", sink.Name, name, sink.PendingRows))
			}
		}
	}
	if len(what) == 0 {
		return "requests and sinks come to their end"
	}
	return strings.Join(what, ", ")
}

// Close closes what openStack opened, the last first.
func (s *stack) Close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// url is where people reach the stack.
func (s *stack) url() string { return "http://" + s.listener.Addr().String() }

// collectorURL is where sensors post.
func (s *stack) collectorURL() string { return s.url() + s.cfg.prefix }

// listen listens on an address of this machine.
func listen(address, flag string) (net.Listener, error) {
	if err := checkAddress(address, flag); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, listenError(address, flag, err)
	}
	return l, nil
}

// checkAddress refuses addresses that are not of this machine alone: what is served there has no TLS.
func checkAddress(address, flag string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return usagef("%s %q is no address: want host:port, such as 127.0.0.1:8420", flag, address)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return usagef("%s %s is not an address of this machine alone; without TLS only loopback is served: use 127.0.0.1, and a reverse proxy for others", flag, address)
	}
	return nil
}

func listenError(address, flag string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is taken by another process; stop that one, or choose another address with %s", address, flag)
	}
	return fmt.Errorf("listen on %s: %w; choose another address with %s", address, err, flag)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
