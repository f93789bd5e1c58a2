package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"millrace/control"
	"millrace/control/access"
	"millrace/control/api"
	"millrace/control/local"
	"millrace/eventlog/broker"
)

// backupPath makes a backup when it is asked for one, and answers when it is made. Whoever asks waits: who goes away does not want it any more.
const backupPath = "/api/v1/backup"

// backupAsk is what a backup is asked for with.
type backupAsk struct {
	Folder string `json:"folder"` // absolute, on the machine of the process
	Who    string `json:"who"`
}

// stagingDir has, while a backup of a directory in use is made, links to what goes into it.
const stagingDir = "backing-up"

// standstill is how long a backup waits for what has to stand still: a compaction of the lake that is at work may take a while.
const standstill = 2 * time.Minute

// backupMetrics are of backups of a directory in use.
type backupMetrics struct {
	made               *prometheus.CounterVec
	moment, took, held prometheus.Gauge
	bytes              prometheus.Gauge
}

func newBackupMetrics(r prometheus.Registerer) *backupMetrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &backupMetrics{
		made: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_backups_total", Help: "Backups that this process was asked for, by outcome: done or failed.",
		}, []string{"outcome"}),
		moment: gauge("millrace_backup_timestamp_seconds", "Moment that the last backup is of that this process made, since 1970; 0 when there is none."),
		took:   gauge("millrace_backup_duration_seconds", "How long that backup took."),
		held:   gauge("millrace_backup_held_seconds", "How long nothing was published for that backup."),
		bytes:  gauge("millrace_backup_bytes", "How large the last backup is that this process made."),
	}
	for _, outcome := range []string{"done", "failed"} {
		m.made.WithLabelValues(outcome)
	}
	r.MustRegister(m.made, m.moment, m.took, m.held, m.bytes)
	return m
}

// serveBackup makes a backup. Only who may read the data directory may ask: the folder is on this machine, and will have all that is in the directory.
func (s *stack) serveBackup(w http.ResponseWriter, r *http.Request) {
	made, err := s.askedBackup(r)
	status, kind, body := http.StatusOK, "application/json", any(made)
	if err != nil {
		status, kind = http.StatusInternalServerError, "application/problem+json"
		switch {
		case errors.As(err, new(usageError)):
			status = http.StatusBadRequest
		case errors.Is(err, control.ErrNotAllowed):
			status = http.StatusForbidden
		case errors.Is(err, control.ErrRefused), errors.Is(err, fs.ErrExist):
			status = http.StatusConflict
		}
		body = api.Problem{Title: http.StatusText(status), Status: status, Detail: err.Error()}
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.cfg.logger.Debug("answer not written", "path", r.URL.Path, "error", err)
	}
}

func (s *stack) askedBackup(r *http.Request) (made madeBackup, err error) {
	p := access.From(r.Context())
	if !p.Local {
		return made, fmt.Errorf("%w: a backup is made by whoever may read the data directory, with 'millrace backup' on the machine of the process", control.ErrNotAllowed)
	}
	var ask backupAsk
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 64<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(&ask); err != nil {
		return made, usagef("the request's body: %w", err)
	}
	if !filepath.IsAbs(ask.Folder) {
		return made, usagef("folder %q: want an absolute path", ask.Folder)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	go func() {
		select {
		case <-s.ending:
			cancel(errStopping)
		case <-ctx.Done():
		}
	}()
	e := control.Entry{Who: ask.Who, Role: p.Role.String(), Remote: r.RemoteAddr, Action: "backup", Subject: ask.Folder, Outcome: "done"}
	if made, err = s.backUp(ctx, ask.Folder); err != nil {
		e.Outcome = err.Error()
	}
	if audit := s.store.Audit.Add(context.WithoutCancel(ctx), e); audit != nil {
		err = errors.Join(err, fmt.Errorf("what was done is not in the audit log: %w", audit))
	}
	return made, err
}

// backUp makes a backup of the directory while the stack runs.
func (s *stack) backUp(ctx context.Context, to string) (made madeBackup, err error) {
	if s.forgets {
		return made, fmt.Errorf("%w: records are being forgotten, and a backup would have some of them; try again when 'millrace forget' has ended", control.ErrRefused)
	}
	select {
	case s.backingUp <- struct{}{}:
		defer func() { <-s.backingUp }()
	default:
		return made, fmt.Errorf("%w: another backup is being made; try again when it has ended", control.ErrRefused)
	}
	if err := until(ctx, func() (bool, error) { return s.plane.Runs(), nil }); err != nil { // it takes a moment from the start on
		return made, err
	}
	began, log := time.Now(), s.cfg.logger.With("folder", to)
	log.Info("backup begins")
	if made, err = s.makeBackup(ctx, to); err != nil {
		log.Warn("backup not made", "error", err)
		s.backups.made.WithLabelValues("failed").Inc()
		return made, err
	}
	log.Info("backup made", "files", made.Files, "bytes", made.Bytes, "moment", made.Moment, "held", time.Duration(made.Held*float64(time.Second)), "took", time.Since(began))
	s.backups.made.WithLabelValues("done").Inc()
	s.backups.moment.Set(float64(made.Moment.UnixMilli()) / 1e3)
	s.backups.took.Set(time.Since(began).Seconds())
	s.backups.held.Set(made.Held)
	s.backups.bytes.Set(float64(made.Bytes))
	return made, nil
}

func (s *stack) makeBackup(ctx context.Context, to string) (made madeBackup, err error) {
	dir := s.cfg.dir
	source, err := makeTarget(dir, to)
	if err != nil {
		return made, err
	}
	st := &staging{stack: s, from: source, dir: filepath.Join(source, stagingDir), target: filepath.Join(to, backupData)}
	defer func() {
		if err != nil {
			err = fmt.Errorf("back up %s: %w; what there is of it in %s is removed", dir.path, err, to)
			err = errors.Join(err, os.RemoveAll(to))
		}
		err = errors.Join(err, os.RemoveAll(st.dir))
	}()
	if err := errors.Join(os.RemoveAll(st.dir), os.Mkdir(st.dir, 0o700), os.Mkdir(st.target, 0o700)); err != nil {
		return made, err
	}
	if err := st.fill(ctx); err != nil {
		return made, err
	}
	files, err := st.files()
	if err != nil {
		return made, err
	}
	missing, err := elsewhere(ctx, dir)
	if err != nil {
		return made, err
	}
	b := backup{Format: backupFormat, Made: st.moment.UTC(), Version: version, Source: source, Missing: missing}
	if err := b.write(ctx, dir, to, files); err != nil {
		return made, err
	}
	made = b.made()
	made.Held = st.held.Seconds()
	return made, nil
}

// staging is what of a directory in use goes into a backup.
type staging struct {
	*stack
	from   string // the data directory
	dir    string // where links to its files are
	target string // of the copies

	moment time.Time
	held   time.Duration
	log    []broker.Part
}

// fill takes all files as of one moment. Doc comment of backup says why so, and in this order.
func (st *staging) fill(ctx context.Context) error {
	// Most files of the lake are there already; those that are removed meanwhile are in no snapshot that is kept.
	if err := st.link(ctx, filepath.Join("lake", "warehouse"), always); err != nil {
		return err
	}
	waiting, enough := context.WithTimeoutCause(ctx, standstill, fmt.Errorf("it was waited for for %s; try again when it has ended", standstill))
	defer enough()
	open, err := st.gate.shut(waiting)
	if err != nil {
		return err
	}
	defer open()
	began := time.Now()
	release, err := st.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	st.moment = time.Now()
	st.cfg.logger.Info("sinks are held for a backup", "waited", st.moment.Sub(began))
	if err := st.copyAll(ctx); err != nil {
		return err
	}
	release()
	st.held = time.Since(began)
	return ctx.Err()
}

// copyAll takes the files while nothing is published.
func (st *staging) copyAll(ctx context.Context) error {
	if err := st.store.Copy(filepath.Join(st.dir, "keys.db")); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(st.dir, "lake"), 0o750); err != nil {
		return err
	}
	if err := st.lake.CopyCatalogue(ctx, filepath.Join(st.dir, "lake", "catalog.db")); err != nil {
		return err
	}
	if err := st.link(ctx, filepath.Join("lake", "warehouse"), always); err != nil {
		return err
	}
	if err := st.copyStates(ctx); err != nil {
		return err
	}
	if st.embedded != nil {
		if err := st.embedded.Copy(ctx, filepath.Join(st.target, indexFile)); err != nil {
			return err
		}
	}
	others, err := os.ReadDir(st.from)
	if err != nil {
		return err
	}
	rest := func() error {
		for _, e := range others {
			if slices.Contains(leftOut, e.Name()) || slices.Contains([]string{"lake", "jobs", "log"}, e.Name()) || isPartOf(e.Name(), "keys.db", indexFile) || strings.HasSuffix(e.Name(), ".tmp") {
				continue
			}
			if err := st.link(ctx, e.Name(), always); err != nil { // files are replaced by a rename
				return err
			}
		}
		if len(st.cfg.brokers) > 0 {
			return nil
		}
		st.log, err = broker.Snapshot(filepath.Join(st.from, "log"), filepath.Join(st.dir, "log"))
		return err
	}
	if st.beside != nil {
		return st.beside(rest)
	}
	return rest()
}

// isPartOf reports whether a file is one of a database, or what its library keeps beside it.
func isPartOf(name string, databases ...string) bool {
	return slices.ContainsFunc(databases, func(db string) bool {
		return slices.Contains([]string{db, db + "-wal", db + "-shm", db + ".wal", db + ".tmp", db + ".next"}, name)
	})
}

// hold has the jobs publish nothing to what is copied until release is called, and waits until they do not.
func (st *staging) hold(ctx context.Context) (release func(), err error) {
	sinks := []string{"iceberg"}
	if len(st.cfg.brokers) == 0 {
		sinks = append(sinks, "topic")
	}
	if st.embedded != nil {
		sinks = append(sinks, "elastic")
	}
	jobs := st.jobs()
	held := make([]func(), len(jobs))
	release = func() {
		for i, let := range held {
			if let != nil {
				let()
				held[i] = nil
			}
		}
	}
	var g errgroup.Group
	for i, j := range jobs {
		process, open := j.opened()
		if !open {
			continue
		}
		g.Go(func() error {
			holding, giveUp := context.WithCancel(ctx) // ends with the backup, not with the waiting
			enough := time.AfterFunc(standstill, giveUp)
			let, err := process.Hold(holding, sinks...)
			if !enough.Stop() && ctx.Err() == nil {
				err = fmt.Errorf("its sinks have not come to the end of what they publish for %s: see what 'millrace app list' and its log say, and try again", standstill)
			}
			if errors.Is(err, local.ErrOlder) {
				err = fmt.Errorf("%w: build it again with 'millrace build', or stop this process and make the backup then", err)
			}
			if err != nil {
				giveUp()
				if let != nil {
					let()
				}
				return fmt.Errorf("job %s: %w", j.instance.UniqueID(), err)
			}
			held[i] = func() {
				let()
				giveUp()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// copyStates copies the last commit of each job, and the directories of those that are not open.
func (st *staging) copyStates(ctx context.Context) error {
	folders, err := os.ReadDir(filepath.Join(st.from, "jobs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	open := map[string]*local.Process{}
	for _, j := range st.jobs() {
		if process, ok := j.opened(); ok {
			open[j.instance.UniqueID()] = process
		}
	}
	for _, f := range folders {
		name := f.Name()
		if strings.HasPrefix(name, "tmp-") {
			continue
		}
		if process, ok := open[name]; ok {
			if err := process.Copy(ctx, filepath.Join(st.dir, "jobs", name)); err != nil {
				return err
			}
			continue
		}
		if err := st.ended(ctx, name); err != nil {
			return err
		}
		if err := st.link(ctx, filepath.Join("jobs", name), neverChanges); err != nil {
			return err
		}
	}
	return nil
}

// ended waits until the process of a job is gone that is not open: it may just have failed.
func (st *staging) ended(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, standstill, fmt.Errorf("the process of job %s has not ended for %s; end it, and try again", id, standstill))
	defer cancel()
	return until(ctx, func() (bool, error) {
		runs, err := st.processes.Runs(id)
		return !runs, err
	})
}

// always has files be linked.
func always(string) bool { return true }

// neverChanges reports whether a file of a job's directory is written once: Pebble's tables and blobs, and segments of the outbox. A process that opens
// the directory writes to the others again.
func neverChanges(rel string) bool {
	ext := filepath.Ext(rel)
	return ext == ".sst" || ext == ".blob" || filepath.Base(filepath.Dir(rel)) == "outbox"
}

// link links what is below a path of the data directory, or copies what may change, but for what is there already or goes away meanwhile. Checkpoints of
// jobs are left out, and what has a hidden name: it is being made.
func (st *staging) link(ctx context.Context, path string, may func(rel string) bool) error {
	return filepath.WalkDir(filepath.Join(st.from, path), func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(st.from, name)
		if err != nil {
			return err
		}
		to := filepath.Join(st.dir, rel)
		switch {
		case strings.HasPrefix(d.Name(), "."), d.IsDir() && d.Name() == "checkpoints" && strings.HasPrefix(rel, "jobs"):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return os.MkdirAll(to, 0o750)
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is neither a file nor a folder; a data directory has no such thing", name)
		}
		if may(rel) {
			err = os.Link(name, to)
		} else {
			_, _, err = copyFile(ctx, name, to, wholeFile, 0o600)
		}
		switch {
		case errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrNotExist):
			return nil
		case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOTSUP):
			return fmt.Errorf("the disk of data directory %s has no hard links, which a backup of a directory in use takes: %w; stop the process, and make the backup then", st.from, err)
		}
		return err
	})
}

// files are those that go into the backup.
func (st *staging) files() ([]original, error) {
	all, err := filesOf(st.dir, []string{"log"})
	if err != nil {
		return nil, err
	}
	for _, p := range st.log {
		name := filepath.Join("log", p.Name)
		at := filepath.Join(st.dir, name)
		info, err := os.Stat(at)
		if err != nil {
			return nil, err
		}
		all = append(all, original{backupFile{Path: filepath.ToSlash(name), Mode: info.Mode().Perm(), Bytes: p.Bytes}, at})
	}
	copied, err := filesOf(st.target, nil)
	return append(all, copied...), err
}
