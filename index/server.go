package index

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // date histograms by local day work on machines without a time zone database

	"github.com/duckdb/duckdb-go/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says where a Server keeps its data and what it may use.
type Config struct {
	Path string // the database file; made when it is not there, its directory is not

	MemoryLimit  int64 // bytes that DuckDB may use for its buffers; default 128 MB
	Threads      int   // threads a search may use, beside those of other searches; default 1
	MaxBodyBytes int64 // of one request, decompressed; default 32 MiB; larger ones are answered 413

	Logger     *slog.Logger          // default: none
	Registerer prometheus.Registerer // default: none
	Now        func() time.Time      // what "now" in a query is, and when an index was made; default time.Now

	options map[string]string // of DuckDB, for tests
}

func (c Config) withDefaults() Config {
	if c.MemoryLimit <= 0 {
		c.MemoryLimit = 128 << 20
	}
	if c.Threads <= 0 {
		c.Threads = 1 // with more, threads take a statement's parts from each other, and who waits for the last part asks for it without a pause
	}
	if c.MaxBodyBytes <= 0 {
		c.MaxBodyBytes = 32 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Server is the search server over one database file. It is an http.Handler, safe for concurrent use.
type Server struct {
	config  Config
	writer  *writer
	metrics *metrics
	file    *os.File // of the database, see Copy; nil until it was copied

	// dbMu is held by those who read while they use db, and by the writer while it replaces it (renew.go).
	dbMu sync.RWMutex
	db   *sql.DB

	// catalogMu keeps catalog and tables in step for those who begin to read: a reader holds it while it takes the catalog
	// and pins its snapshot of the database, the writer while it commits a change of tables and replaces the catalog.
	catalogMu sync.RWMutex
	catalog   *catalog
}

// maxReaders is how many searches run at once; more wait. Each may use Threads threads and shares MemoryLimit.
const maxReaders = 4

// attachOptions are those of a file. Smaller row groups than the default of 122,880 rows halve the memory that a checkpoint takes; 1.4 is the first
// version whose files compress strings with zstd.
const attachOptions = "(ROW_GROUP_SIZE 16384, STORAGE_VERSION 'v1.4.0')"

// fileHeaders is how many bytes of a DuckDB file are before its blocks.
const fileHeaders = 3 * 4096

// Open opens or makes the database file and starts the server. Its errors are one sentence that names the file.
func Open(config Config) (*Server, error) {
	config = config.withDefaults()
	if config.Path == "" {
		return nil, errors.New("open index: no file given")
	}
	if err := checkFile(config.Path); err != nil {
		return nil, err
	}
	s := &Server{config: config}
	if err := s.open(); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(config.Registerer)
	var err error
	if s.writer, err = startWriter(s); err != nil {
		return nil, errors.Join(openError(config.Path, err), s.db.Close())
	}
	config.Logger.Info("index opened", "path", config.Path, "indices", len(s.catalog.indices))
	return s, nil
}

// open opens the database file and reads the catalog.
func (s *Server) open() error {
	config := s.config
	options := url.Values{}
	for name, v := range map[string]string{
		"memory_limit": strconv.FormatInt(config.MemoryLimit>>10, 10) + "KiB",
		"threads":      strconv.Itoa(config.Threads),

		// Nothing is loaded from the network or from elsewhere on the disk, whatever a query says.
		"autoinstall_known_extensions": "false",
		"autoload_known_extensions":    "false",
		"allow_community_extensions":   "false",

		"allocator_background_threads": "true", // they give back what was freed; without, it is kept until its thread allocates again

		"temp_directory": config.Path + ".tmp", // for what does not fit MemoryLimit

		"preserve_insertion_order": "false", // searches say their order, and keeping it takes memory
	} {
		options.Set(name, v)
	}
	for name, v := range config.options {
		options.Set(name, v)
	}
	// Attached instead of opened, because only so can the options be said.
	attach := fmt.Sprintf("ATTACH IF NOT EXISTS '%s' AS store %s; USE store", strings.ReplaceAll(config.Path, "'", "''"), attachOptions)
	connector, err := duckdb.NewConnector("?"+options.Encode(), func(conn driver.ExecerContext) error {
		_, err := conn.ExecContext(context.Background(), attach, nil)
		return err
	})
	if err != nil {
		return openError(config.Path, err)
	}
	s.db = sql.OpenDB(connector)
	s.db.SetMaxOpenConns(maxReaders + 1) // one for the writer
	s.db.SetMaxIdleConns(maxReaders + 1)
	if err = s.load(); err == nil {
		err = s.checkSize()
	}
	if err == nil {
		err = s.vacuum()
	}
	if err != nil {
		return errors.Join(err, s.db.Close())
	}
	return nil
}

// load makes or checks the catalog tables and reads them.
func (s *Server) load() error {
	ctx := context.Background()
	for _, q := range []string{schema, "SET enable_external_access = false"} {
		if _, err := s.db.ExecContext(ctx, q); err != nil {
			return openError(s.config.Path, err)
		}
	}
	var version sql.NullInt64
	if err := s.db.QueryRowContext(ctx, "SELECT max(version) FROM layout").Scan(&version); err != nil {
		return openError(s.config.Path, err)
	}
	if !version.Valid {
		if _, err := s.db.ExecContext(ctx, "INSERT INTO layout VALUES ($1)", layout); err != nil {
			return openError(s.config.Path, err)
		}
	} else if version.Int64 > layout {
		return fmt.Errorf("open index %s: it was written by a newer version of this program (layout %d, this one knows %d): use that version", s.config.Path, version.Int64, layout)
	}
	c, err := loadCatalog(ctx, s.db)
	if err != nil {
		return openError(s.config.Path, err)
	}
	s.catalog = c
	return nil
}

// vacuum takes deleted rows out of the file, and is the last that configures the database.
//
// Only a checkpoint does that, by merging row groups, and only when something has changed. Those of a database in use do not merge: they
// did, some tens of thousands of rows in every fourth, also where nobody had deleted any, and all requests waited for a second of
// processor time.
func (s *Server) vacuum() error {
	statements := []string{"SET max_vacuum_tasks = 0", "SET lock_configuration = true"}
	if len(s.catalog.indices) > 0 {
		statements = slices.Insert(statements, 0, "INSERT INTO layout VALUES (0)", "DELETE FROM layout WHERE version = 0", "FORCE CHECKPOINT store")
	}
	for _, q := range statements {
		if _, err := s.db.ExecContext(context.Background(), q); err != nil {
			return openError(s.config.Path, err)
		}
	}
	return nil
}

// checkSize checks that the file holds all blocks that its tables name: DuckDB opens one that was cut short, and fails when it
// reads what is not there.
func (s *Server) checkSize() error {
	ctx := context.Background()
	var blockSize, blocks int64
	err := s.db.QueryRowContext(ctx, "SELECT block_size, total_blocks FROM pragma_database_size() WHERE database_name = 'store'").Scan(&blockSize, &blocks)
	if err != nil {
		return openError(s.config.Path, err)
	}
	info, err := os.Stat(s.config.Path)
	if err != nil {
		return fmt.Errorf("open index: %w", err)
	}
	if info.Size() >= fileHeaders+blocks*blockSize {
		return nil
	}
	// That is damage, or DuckDB cut free blocks off after it had written how many there are. Only the blocks' users know; to ask
	// them takes about a second for a gigabyte.
	queries := []string{"SELECT max(block_id) FROM pragma_metadata_info('store')"}
	tables := []string{"layout", "indices"}
	for _, x := range s.catalog.indices {
		tables = append(tables, x.table())
	}
	for _, t := range tables {
		queries = append(queries, "SELECT max(greatest(block_id, list_max(additional_block_ids))) FROM pragma_storage_info('"+t+"') WHERE persistent")
	}
	for _, q := range queries {
		var last sql.NullInt64
		if err := s.db.QueryRowContext(ctx, q).Scan(&last); err != nil {
			return openError(s.config.Path, err)
		}
		if whole := fileHeaders + (last.Int64+1)*blockSize; last.Valid && info.Size() < whole {
			return fmt.Errorf("open index %s: it is damaged: it has %d bytes where at least %d were written: restore it from a backup", s.config.Path, info.Size(), whole)
		}
	}
	return nil
}

// checkFile finds what DuckDB would report at length or not at all.
func checkFile(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return fmt.Errorf("open index %s: its directory does not exist", path)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("open index: %w", err)
	}
	if info.IsDir() {
		return fmt.Errorf("open index %s: it is a directory, not a file", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open index for writing: %w", err)
	}
	return f.Close()
}

var (
	lockHolder = regexp.MustCompile(`PID (\d+)`)
	extraInfo  = regexp.MustCompile(`\s*(See also|For more information|Stack Trace)[\s\S]*`)
)

// openError says in one sentence why DuckDB did not open the file.
func openError(path string, err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "Could not set lock"):
		holder := "another process"
		if m := lockHolder.FindStringSubmatch(text); m != nil {
			holder = "process " + m[1]
		}
		return fmt.Errorf("open index %s: %s is using it: stop that one or choose another file", path, holder)
	case strings.Contains(text, "newer version") || strings.Contains(text, "storage version") || strings.Contains(text, "version number"):
		return fmt.Errorf("open index %s: it was written by another version of DuckDB that this program cannot read: use the program that wrote it", path)
	case strings.Contains(text, "not a valid DuckDB") || strings.Contains(text, "orrupt") || strings.Contains(text, "hecksum") ||
		strings.Contains(text, "Failure while replaying WAL") || strings.Contains(text, "INTERNAL") || strings.Contains(text, "Could not read enough bytes") || strings.Contains(text, "Serialization Error"):
		return fmt.Errorf("open index %s: it is damaged or not an index: restore it from a backup", path)
	}
	text = strings.TrimPrefix(text, "database/sql/driver: could not connect to database: ")
	text = strings.Join(strings.Fields(extraInfo.ReplaceAllString(text, "")), " ")
	return fmt.Errorf("open index %s: %s", path, text)
}

// Close ends the writer after the write it is at, writes what is in the log into the file, and closes it. Requests that come
// after it are answered 503.
func (s *Server) Close() error {
	s.writer.stop()
	_, err := s.db.ExecContext(context.Background(), "CHECKPOINT")
	if cerr := s.db.Close(); err == nil {
		err = cerr
	}
	if s.file != nil {
		err = errors.Join(err, s.file.Close())
	}
	if err != nil {
		return fmt.Errorf("close index %s: %w", s.config.Path, err)
	}
	return nil
}

// snapshot is one consistent state of catalog and tables.
type snapshot struct {
	*catalog
	tx  *sql.Tx
	now time.Time
}

// read calls f with a snapshot. Everything f reads is as of one moment, and ends with ctx.
func (s *Server) read(ctx context.Context, f func(snapshot) error) error {
	s.dbMu.RLock()
	defer s.dbMu.RUnlock()
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("wait for a free reader: %w", err)
	}
	defer func() { _ = conn.Close() }() // back to the pool
	tx, c, err := s.pin(ctx, conn)
	if err != nil {
		discard(conn)
		return err
	}
	defer func() {
		_ = tx.Rollback() // nothing was written
		if ctx.Err() != nil {
			discard(conn)
		}
	}()
	return f(snapshot{c, tx, s.config.Now()})
}

// discard takes conn out of the pool. DuckDB may leave one whose client went away in an aborted transaction, in which every later
// statement fails.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
}

func (s *Server) pin(ctx context.Context, conn *sql.Conn) (*sql.Tx, *catalog, error) {
	s.catalogMu.RLock()
	defer s.catalogMu.RUnlock()
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	// DuckDB takes its snapshot at the first statement that reads the file.
	if _, err := tx.ExecContext(ctx, "SELECT count(*) FROM layout"); err != nil {
		return nil, nil, errors.Join(err, tx.Rollback())
	}
	return tx, s.catalog, nil
}

// current returns the catalog as of now.
func (s *Server) current() *catalog {
	s.catalogMu.RLock()
	defer s.catalogMu.RUnlock()
	return s.catalog
}

// appender appends rows to a table inside the transaction that conn is in.
func appender(conn *sql.Conn, table string, columns []string, fill func(*duckdb.Appender) error) error {
	return conn.Raw(func(c any) error {
		a, err := duckdb.NewAppenderWithColumns(c.(driver.Conn), "", "", table, columns)
		if err != nil {
			return err
		}
		if err := fill(a); err != nil {
			return errors.Join(err, a.Clear(), a.Close())
		}
		return a.Close()
	})
}
