package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"millrace"
	"millrace/artifact"
	"millrace/collect"
	"millrace/control"
	"millrace/control/access"
	"millrace/control/api"
	"millrace/control/local"
	"millrace/delivery"
	"millrace/delivery/catalog"
	"millrace/eventlog"
	"millrace/eventlog/broker"
	"millrace/index"
	"millrace/internal/tracing"
	"millrace/lake"
	"millrace/web"
)

// stackConfig says what a stack is made of.
type stackConfig struct {
	dir         *dataDir
	name        string            // of the stack; empty: the one it has
	listen      string            // of collector and console
	tlsCert     string            // file of listen's certificate; empty: it has no TLS
	tlsKey      string            // file of the certificate's key
	insecure    bool              // listen may be an address that other machines reach, without TLS
	publicURL   string            // at which browsers reach the console; empty: that of listen
	oidc        oidcSettings      // of the provider at which people sign in
	anonymous   *control.Role     // of who shows no token; nil: analyst on a loopback address, else nobody
	prefix      string            // path of the collector
	logListen   string            // of the embedded broker
	indexListen string            // of the embedded index
	brokers     []string          // of a real cluster; empty: the embedded broker
	security    eventlog.Security // of brokers
	indexURL    string            // of a real index; empty: the embedded one
	warehouse   string            // of the lake; empty: where it is, for a new one in the data directory
	s3          lake.S3           // how an s3:// warehouse is reached
	catalog     lake.REST         // that lists the lake's tables; zero: the one that did, for a new lake one in the data directory
	flush       time.Duration     // of the lake
	memory      int64             // MB that this process and those of the jobs may hold
	jobMemory   int64             // MB of them for each job
	corrections int64             // MB of records that each job keeps to correct their rows
	tableTopics bool              // whether the ETL job's tables go to topics of the log too
	logFormat   string            // text or json; empty: text
	traces      string            // URL of what takes traces; empty: there are none
	traceShare  float64           // of the traces that is kept
	restarts    int               // of a job that fails, within ten minutes; the one after that is not done
	logger      *slog.Logger
	logLevel    slog.Level // of logger, and of the jobs' processes
	jobOutput   io.Writer  // for what the jobs' processes say; nil: their logs have it alone
}

// tracing says where traces go.
func (c stackConfig) tracing() tracing.Config {
	return tracing.Config{Address: c.traces, Share: c.traceShare, Version: version}
}

// shares are those of a stack with the jobs that every stack has.
func (c stackConfig) shares() shares { return divide(c.memory*1e6, 2*c.jobMemory*1e6) }

// resources are what a job gets that has some of its own.
func (c stackConfig) resources(own control.Resources) control.Resources {
	if own.Memory == 0 {
		own.Memory = c.jobMemory
	}
	if own.Parallelism == 0 {
		own.Parallelism = runtime.GOMAXPROCS(0)
	}
	return own
}

// parts are the files that the stack keeps in its directory.
func (c stackConfig) parts() []part {
	parts := []part{{name: "keys.db", what: "the sensor keys"}, {name: "lake/catalog.db", what: "the catalogue of the lake"}}
	if len(c.brokers) == 0 {
		parts = append(parts, part{"log", "the embedded log", "--brokers"})
	}
	if c.indexURL == "" {
		parts = append(parts, part{indexFile, "the embedded index", "--index-url"})
	}
	return parts
}

// stack is everything that runs, each part reached by its protocol, the jobs in processes of their own:
//
//	sensor ─▶ collector ─▶ broker ─┬─▶ crusher-prime-job ─▶ lake: raw
//	                               └─▶ ETL jobs ─▶ index, lake ◀─ console
type stack struct {
	cfg        stackConfig
	registry   *prometheus.Registry
	tracer     trace.Tracer
	started    time.Time
	closers    []func() error // in the order to close
	listener   net.Listener
	tls        *tls.Config  // of listener; nil: it has no TLS
	local      net.Listener // for commands on this machine: listener, unless that has TLS or is of other machines too
	logAddr    string
	indexAddr  string
	log        *eventlog.Log
	brokers    []string // of log
	processes  *local.Supervisor
	executable string // this program
	build      string // tells it from others
	store      *control.Store
	name       string // of the stack
	collector  *collect.Collector
	lake       *lake.Lake
	index      *delivery.Index
	catalog    *catalog.Catalog
	console    *web.Server
	accounts   *accounts
	querying   chan struct{} // holds something while a query runs
	reading    chan struct{} // and for each who reads rows
	comparing  chan struct{} // and while data versions are compared
	provider   *provider     // nil: there is none
	plane      *control.Plane
	events     api.Events
	operators  *api.Handler  // what operators do
	ending     chan struct{} // closed when the servers are about to end
	endStreams func()        // closes it, and ends the streams of events
	secret     string        // that operators show
	raw        *stackJob

	gate      gate                     // through which operations have their effects, and processes of jobs start
	backingUp chan struct{}            // holds something while a backup is made
	forgets   bool                     // it runs to remove records, of which a backup would have some
	backups   *backupMetrics           // what is shown of them
	embedded  *index.Server            // nil: the index is elsewhere
	beside    func(func() error) error // has files in the directory that others write stay as they are, of one moment with the log; nil: there are none

	deploying sync.Mutex      // held while a version is pushed, deployed or deleted, or chosen for an instance
	changing  sync.Mutex      // held while a job is added, or stands still for what is done to its tables
	working   context.Context // of the jobs' runs; nil unless the stack runs

	rewriteIndex bool // once it is closed, without what was deleted from it

	mu              sync.Mutex
	apps            []app       // is replaced, not changed
	derived         []*stackJob // of the instances of all apps but that of raw, the oldest first
	servingVersions map[control.Line]string
	newest          time.Time // that a data version was named by; zero: none was
}

func openStack(ctx context.Context, cfg stackConfig) (s *stack, err error) {
	s = &stack{cfg: cfg, registry: prometheus.NewRegistry(), started: time.Now(), secret: rand.Text(), ending: make(chan struct{}), querying: make(chan struct{}, 1), reading: make(chan struct{}, readers), comparing: make(chan struct{}, 1), backingUp: make(chan struct{}, 1)}
	s.endStreams = sync.OnceFunc(func() {
		close(s.ending)
		s.events.End()
	})
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
	if err = os.RemoveAll(cfg.dir.join(stagingDir)); err != nil { // of a backup that was killed
		return s, err
	}
	s.backups = newBackupMetrics(s.registry)
	s.registry.MustRegister(newBuildInfo(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	tracer, endTraces, err := tracing.Open(ctx, cfg.tracing(), cfg.logger)
	if err != nil {
		return s, err
	}
	s.tracer = tracer
	s.onClose(endTraces)
	if err = s.listen(); err != nil {
		return s, err
	}
	if err = s.openLog(ctx); err != nil {
		return s, err
	}
	if err = s.openIndex(); err != nil {
		return s, err
	}
	if s.store, err = control.Open(cfg.dir.join("keys.db")); err != nil {
		return s, err
	}
	s.onClose(s.store.Close)
	if err = s.takeName(ctx); err != nil {
		return s, err
	}
	if s.lake, err = s.openLake(ctx); err != nil {
		return s, err
	}
	s.onClose(s.lake.Close)
	if s.catalog, err = catalog.New(catalog.Config{Lake: s.lake, Authorize: s.authorize, Serving: s.servingNamespaces, Logger: cfg.logger}); err != nil {
		return s, err
	}
	if err = s.openApps(ctx); err != nil {
		return s, err
	}
	if err = s.openProcesses(); err != nil {
		return s, err
	}
	s.onClose(s.closeJobs)
	if err = s.openJobs(ctx); err != nil {
		return s, err
	}
	s.plane = control.NewPlane(control.PlaneConfig{Instances: s.store.Instances, Runner: gated{runner{s}}, Logger: cfg.logger, Changed: s.changed})
	if s.operators, err = api.New(api.Config{Service: s, Store: s.store, Version: version, Comparison: delivery.Comparison{}, Audit: s.store.Audit.Add, Ending: s.ending, Logger: cfg.logger}); err != nil {
		return s, err
	}
	s.collector, err = collect.New(collect.Config{Log: s.log, Keys: s.sensorKey, Prefix: cfg.prefix, Logger: cfg.logger, Registerer: s.registry, Tracer: s.tracer})
	if err != nil {
		return s, err
	}
	s.accounts = newAccounts(s.store)
	if err = s.openProvider(); err != nil {
		return s, err
	}
	console := web.Config{
		Stack: s.name, Accounts: s.accounts, Cookies: s.cookies(),
		Status: s.status, Rows: s.newestRows, DeadLetters: s.deadLetters, Ready: s.ready, Logger: cfg.logger,
	}
	if s.provider != nil {
		console.Provider = s.provider
	}
	if s.console, err = web.New(console); err != nil {
		return s, err
	}
	return s, writeJSON(cfg.dir.join("running.json"), running{
		PID: os.Getpid(), Listen: s.local.Addr().String(), Log: s.logAddr, Index: s.indexAddr, Token: s.secret, Security: s.cfg.security,
	})
}

// servingNamespaces are those of the lake that readers see.
func (s *stack) servingNamespaces(context.Context) (all []string, _ error) {
	for _, j := range s.serving() {
		all = append(all, j.instance.Namespace())
	}
	return all, nil
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
	s.logAddr, s.brokers = brokers[0], brokers
	if s.log, err = eventlog.Open(ctx, eventlog.Config{Brokers: brokers, Security: artifact.WithPassword(s.cfg.security), FetchBytes: s.cfg.shares().fetch, Logger: s.cfg.logger, Registerer: s.registry}); err != nil {
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
		srv, err := index.Open(index.Config{Path: s.cfg.dir.join(indexFile), MemoryLimit: s.cfg.shares().index, Logger: s.cfg.logger, Registerer: s.registry})
		if err != nil {
			return err
		}
		s.embedded = srv
		s.onClose(func() error {
			if err := srv.Close(); err != nil || !s.rewriteIndex {
				return err
			}
			return index.Rewrite(s.cfg.dir.join(indexFile))
		})
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
		Dir: s.cfg.dir.join("lake"), Warehouse: s.cfg.warehouse, S3: s.cfg.s3, Catalog: artifact.WithSecrets(s.cfg.catalog), Logger: s.cfg.logger, Registerer: s.registry,
	})
}

// openProcesses makes what runs the jobs' processes. They run this program as it is now, also when another one has taken its file meanwhile.
func (s *stack) openProcesses() error {
	if artifact.WithoutUser(s.indexAddr) != s.indexAddr { // it may have come by a flag; they have it from the environment
		if err := os.Setenv(artifact.IndexVariable, s.indexAddr); err != nil {
			return err
		}
	}
	name := "/proc/self/exe" // the file that was started, whatever has its name by now
	info, err := os.Stat(name)
	if err != nil { // not on Linux
		if name, err = os.Executable(); err == nil {
			info, err = os.Stat(name)
		}
	}
	if err != nil {
		return fmt.Errorf("find this program, to run jobs with: %w", err)
	}
	s.executable = name
	s.build = fmt.Sprintf("%s %d bytes of %s", version, info.Size(), info.ModTime().UTC().Format(time.RFC3339Nano))
	s.processes = local.New(local.Config{
		Dir: s.cfg.dir.join(processesDir), Tied: len(s.cfg.brokers) == 0 || s.cfg.indexURL == "",
		Output: s.cfg.jobOutput, Logger: s.cfg.logger,
	})
	return nil
}

// closeJobs closes all jobs, the last first.
func (s *stack) closeJobs() error {
	var errs []error
	for _, j := range slices.Backward(s.jobs()) {
		if j != nil { // opening failed before it was made
			errs = append(errs, j.close())
		}
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends. Then the collector finishes the requests it has begun, and the jobs read what is in the log, for five
// seconds at most, commit it and publish it: a stack that was stopped is at rest, unless it was behind. A job that fails does not end
// Run: what sensors send is still collected, and the job goes on from its last commit at the next start.
func (s *stack) Run(ctx context.Context) error {
	server := s.server(s.cfg.anonymousAt(s.cfg.listen))
	server.TLSConfig = s.tls
	local := s.server(0)

	working, stopJobs := context.WithCancel(context.WithoutCancel(ctx)) // jobs outlive ctx until they have read the rest
	defer stopJobs()
	if err := s.beginWork(working); err != nil {
		return err
	}
	if err := s.plane.StartJobs(working); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if s.tls != nil {
			return ignoreClosed(server.ServeTLS(s.listener, "", ""))
		}
		return ignoreClosed(server.Serve(s.listener))
	})
	if s.local != s.listener {
		g.Go(func() error { return ignoreClosed(local.Serve(s.local)) })
	}
	g.Go(func() error { return s.console.Run(ctx) })
	g.Go(func() error { return s.cfg.dir.watchDisk(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		defer stopJobs()
		return s.windDown(context.WithoutCancel(ctx), server, local)
	})
	g.Go(func() error { return s.plane.Run(ctx) })
	g.Go(func() error { return s.assertServing(ctx) })
	g.Go(func() error { return s.keepLedgers(ctx) })
	err := g.Wait()
	s.backingUp <- struct{}{} // one that was being made has ended, as the servers have, and there is none any more
	s.changing.Lock()
	s.working = nil
	s.changing.Unlock()
	for _, j := range s.jobs() {
		j.wait()
		err = errors.Join(err, s.plane.Stopped(j.controlled()))
	}
	return err
}

// beginWork closes the jobs that are not to run: the plane runs the others.
func (s *stack) beginWork(ctx context.Context) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.working = ctx
	return nil
}

// serveMetrics answers with the metrics of the stack and of the jobs that are open.
func (s *stack) serveMetrics(w http.ResponseWriter, r *http.Request) {
	all := prometheus.Gatherers{s.registry}
	for _, j := range s.jobs() {
		all = j.gather(r.Context(), all)
	}
	promhttp.HandlerFor(all, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// windDown ends the requests and waits until the jobs have read what they brought.
func (s *stack) windDown(ctx context.Context, servers ...*http.Server) error {
	// Requests that were begun may take as long as their own time limits; those that have not ended then are cut off, and their
	// sensors have no answer.
	ending, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, server := range servers {
		if err := server.Shutdown(ending); err != nil {
			if err := ignoreClosed(server.Close()); err != nil {
				return err
			}
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
	for _, j := range s.jobs() {
		if !j.works() {
			continue
		}
		p, name := j.Progress(), s.nameOf(j)
		switch {
		case p.Seeds():
			what = append(what, fmt.Sprintf("%s has %d rows of the lake to read", name, p.Seeding.Rows-p.Seeding.Read))
		case p.Lag > 0:
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

// nameOf names a job among those of the stack.
func (s *stack) nameOf(j *stackJob) string {
	if j.instance.DataVersion == millrace.Unversioned {
		return j.instance.Program
	}
	return j.instance.Program + " " + j.instance.DataVersion
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

// cookies are secure when browsers reach the console by TLS, which may be that of something before it.
func (s *stack) cookies() access.Cookies {
	return access.Cookies{Secure: s.tls != nil || s.cfg.insecure || strings.HasPrefix(s.cfg.publicURL, "https:")}
}

// setupLink is the address at which the first admin is made; empty when there is a user.
func (s *stack) setupLink(ctx context.Context) (string, error) {
	all, err := s.store.Users.List(ctx)
	if err != nil || len(all) > 0 {
		return "", err
	}
	s.accounts.token = rand.Text()
	return s.publicURL() + "/setup?token=" + s.accounts.token, nil
}

// server answers the stack's routes.
func (s *stack) server(anonymous control.Role) *http.Server {
	who := access.Config{Find: s.who, Session: s.accounts.session, Cookies: s.cookies(), Anonymous: anonymous, Logger: s.cfg.logger}
	server := &http.Server{Handler: sayVersion(who.Mux(s.routes())), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	server.RegisterOnShutdown(s.endStreams)
	return server
}

// sayVersion has every answer of the API say which API it is, refusals included.
func sayVersion(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			w.Header().Set(api.VersionHeader, api.Version)
		}
		h.ServeHTTP(w, r)
	})
}

// listen opens the addresses of the stack itself. What other machines reach has TLS, unless it was said that something before it has.
func (s *stack) listen() error {
	c := &s.cfg
	var err error
	if c.tlsCert != "" {
		files := &certificateFiles{cert: c.tlsCert, key: c.tlsKey}
		if s.tls, err = files.config(); err != nil {
			return err
		}
	}
	if s.tls == nil && !c.insecure {
		s.listener, err = listen(c.listen, "--listen")
	} else {
		s.listener, err = listenAnywhere(c.listen, "--listen")
	}
	if err != nil {
		return err
	}
	s.onClose(func() error { return ignoreClosed(s.listener.Close()) })
	if s.local = s.listener; s.tls == nil && access.IsLoopback(c.listen) {
		return nil
	}
	if s.local, err = listen("127.0.0.1:0", "--listen"); err != nil {
		return err
	}
	s.onClose(func() error { return ignoreClosed(s.local.Close()) })
	return nil
}

// publicURL is where people's browsers reach the stack, without a slash at the end. What a request says of its host is for whoever asks to choose.
func (s *stack) publicURL() string {
	return strings.TrimSuffix(cmp.Or(s.cfg.publicURL, s.url()), "/")
}

// url is where the stack listens.
func (s *stack) url() string {
	scheme := "http"
	if s.tls != nil {
		scheme = "https"
	}
	return scheme + "://" + s.listener.Addr().String()
}

// collectorURL is where sensors post.
func (s *stack) collectorURL() string { return s.url() + s.cfg.prefix }

// listen listens on an address of this machine.
func listen(address, flag string) (net.Listener, error) {
	if err := checkAddress(address, flag); err != nil {
		return nil, err
	}
	return listenAnywhere(address, flag)
}

func listenAnywhere(address, flag string) (net.Listener, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, badAddress(address, flag)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, listenError(address, flag, err)
	}
	return l, nil
}

// checkAddress refuses addresses that are not of this machine alone: what is served there has no TLS.
func checkAddress(address, flag string) error {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return badAddress(address, flag)
	}
	if access.IsLoopback(address) {
		return nil
	}
	if flag == "--listen" {
		return usagef("--listen %s is not an address of this machine alone, and without TLS only those are served: give --tls-cert and --tls-key, or --insecure-http if what stands before it has TLS", address)
	}
	return usagef("%s %s is not an address of this machine alone; what is served there asks nobody who they are: use 127.0.0.1", flag, address)
}

func badAddress(address, flag string) error {
	return usagef("%s %q is no address: want host:port, such as 127.0.0.1:8420", flag, address)
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
