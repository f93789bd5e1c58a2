package lake

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	icebergsql "github.com/apache/iceberg-go/catalog/sql"
	"github.com/apache/iceberg-go/table"
	"github.com/prometheus/client_golang/prometheus"
	_ "modernc.org/sqlite" // the catalogue's driver

	"millrace/plan"
)

// ErrNotFound means that the lake, or a table in it, does not exist.
var ErrNotFound = errors.New("not found")

// ErrReadOnly means that a lake that was opened read-only was asked to change.
var ErrReadOnly = errors.New("the lake is open for reading only")

// DefaultKeepFor is Config.KeepFor when it is not set.
const DefaultKeepFor = 10 * time.Minute

const (
	format      = 1          // of the layout below Config.Dir; docs/formats/lake.md
	appID       = 0x4d4c4b31 // MLK1, SQLite's application_id of the catalogue
	catalogName = "millrace"
	catalogFile = "catalog.db"
	warehouse   = "warehouse"
)

// Config says where a lake is and how it is kept. Dir is required.
type Config struct {
	// Dir holds catalog.db and, unless Warehouse says otherwise, warehouse/. It is created when missing, unless ReadOnly.
	Dir string

	// Warehouse is where the files of the tables are: s3://bucket/prefix. Default: where they are since the lake was made, for a new one
	// the folder warehouse in Dir. A lake has one for good, and a warehouse one lake.
	Warehouse string
	S3        S3 // how an s3:// warehouse is reached

	// Catalog is an Iceberg REST catalogue to list the tables in place of catalog.db, which then only remembers where that is. It has to reach
	// the warehouse. Default: the one that the lake was made with, or none. A lake has one for good, whose address may change.
	Catalog REST

	// ReadOnly opens an existing lake for Scan, Count, Contents, Files, Snapshot, Upkeep and Published while another process may write it.
	ReadOnly bool

	// KeepSnapshots is how many of a table's newest snapshots are kept for readers that have begun on them. Default 100.
	KeepSnapshots int

	// KeepFor is how long a snapshot is kept at least after another one has taken its place, whatever their number. Default
	// DefaultKeepFor. Who reads the files of a snapshot has that long.
	KeepFor time.Duration

	Logger     *slog.Logger          // default: discards
	Registerer prometheus.Registerer // default: no metrics
	Now        func() time.Time      // default time.Now

	fault    fault
	rowGroup int64 // bytes, from which on a row group is full; default rowGroupBytes
}

func (c Config) withDefaults() Config {
	if c.rowGroup == 0 {
		c.rowGroup = rowGroupBytes
	}
	if c.KeepSnapshots <= 0 {
		c.KeepSnapshots = 100
	}
	if c.KeepFor <= 0 {
		c.KeepFor = DefaultKeepFor
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func (c Config) validate() error {
	if c.Dir == "" {
		return errors.New("lake: Config.Dir is empty")
	}
	return c.Catalog.Check()
}

// Lake is an open lake. Its methods may be called concurrently.
type Lake struct {
	cfg     Config
	base    string // location of the warehouse
	db      *sql.DB
	catalog catalogue
	fsys    fileSystem
	fsName  string
	metrics *metrics
	extents extentCache

	mu      sync.Mutex
	pending map[string]struct{} // locations of files that are written and not committed
}

// Open opens the lake in cfg.Dir. It is an error that matches ErrNotFound to open one for reading that does not exist, and an
// error that says what to do if the directory cannot be written, the catalogue is damaged, or a newer program made it.
func Open(ctx context.Context, cfg Config) (*Lake, error) {
	cfg = cfg.withDefaults()
	if cfg.Dir != "" {
		dir, err := filepath.Abs(cfg.Dir)
		if err != nil {
			return nil, fmt.Errorf("lake directory %s: %w", cfg.Dir, err)
		}
		cfg.Dir = dir
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if !cfg.ReadOnly {
		if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
			return nil, fmt.Errorf("make lake directory %s: %w: choose a directory that can be written", cfg.Dir, err)
		}
		if err := checkWritable(cfg.Dir); err != nil {
			return nil, fmt.Errorf("write to lake directory %s: %w: choose a directory that can be written", cfg.Dir, err)
		}
	}
	// Iceberg compares locations as text, so a lake has one, by whatever links it is reached.
	if dir, err := filepath.EvalSymlinks(cfg.Dir); err == nil {
		cfg.Dir = dir
	}
	db, err := openCatalog(ctx, cfg)
	if err != nil {
		return nil, err
	}
	l, err := openWith(ctx, cfg, db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return l, nil
}

// openWith opens the lake that db is the catalogue of, or has the catalogue's address.
func openWith(ctx context.Context, cfg Config, db *sql.DB) (*Lake, error) {
	known, err := readMarker(ctx, db)
	if err != nil {
		return nil, catalogError(cfg.Dir, err)
	}
	at, err := catalogOf(ctx, cfg, db, known)
	if err != nil {
		return nil, err
	}
	fsName := nameFileSystem()
	var remote *restCatalogue
	if at.URI != "" {
		if remote, err = openREST(ctx, cfg, db, at, fsName); err != nil {
			return nil, err
		}
	}
	base, fsys, err := openWarehouse(ctx, cfg, db, known, remote)
	if err != nil {
		if remote != nil {
			err = errors.Join(err, remote.Close())
		}
		return nil, err
	}
	register(fsName, fsys)
	var cat catalogue = remote
	if remote == nil {
		local, err := icebergsql.NewCatalog(catalogName, db, icebergsql.SQLite, iceberg.Properties{
			"warehouse":           base,
			"init_catalog_tables": fmt.Sprint(!cfg.ReadOnly),
			fsProperty:            fsName,
		})
		if err != nil {
			forgetFileSystem(fsName)
			return nil, catalogError(cfg.Dir, err)
		}
		cat = sqlCatalogue{local}
	} else {
		remote.base, remote.fsys = base, fsys
	}
	return &Lake{
		cfg: cfg, base: base, db: db, catalog: cat, fsys: fsys, fsName: fsName,
		metrics: newMetrics(cfg.Registerer),
		extents: extentCache{tables: map[Name]map[string]*manifestExtents{}},
		pending: map[string]struct{}{},
	}, nil
}

// checkWritable tries what every commit does. Permission bits alone do not say whether it works.
func checkWritable(dir string) error {
	f, err := os.CreateTemp(dir, ".writable-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// openCatalog opens the SQLite database and checks that it is a catalogue that this program understands.
func openCatalog(ctx context.Context, cfg Config) (*sql.DB, error) {
	path := filepath.Join(cfg.Dir, catalogFile)
	if !cfg.ReadOnly {
		// A transaction that begins by reading and then writes would fail at once if another process wrote in between,
		// instead of waiting for it.
		return openCatalogWith(ctx, cfg, url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)"}, "_txlock": {"immediate"}})
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lake in %s: %w", cfg.Dir, ErrNotFound)
	}
	query := url.Values{"_pragma": {"busy_timeout(10000)"}, "mode": {"ro"}}
	db, err := openCatalogWith(ctx, cfg, query)
	if !cannotWrite(err) {
		return db, err
	}
	// Readers write too, beside the file, to keep out of a writer's way. A copy that cannot be written has no writer, but a file that one
	// has beside it is a part of it, and cannot be read so.
	if _, statErr := os.Stat(path + "-wal"); statErr == nil {
		return nil, fmt.Errorf("catalogue %s is in use, or was copied while it was, and its folder cannot be written: "+
			"copy the data directory when nothing uses it, or to where it can be written: %w", path, err)
	}
	query.Set("immutable", "1")
	return openCatalogWith(ctx, cfg, query)
}

func openCatalogWith(ctx context.Context, cfg Config, query url.Values) (*sql.DB, error) {
	path := filepath.Join(cfg.Dir, catalogFile)
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open catalogue %s: %w", path, err)
	}
	var version, app, tables int
	err = errors.Join(
		db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version),
		db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&app),
		db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master").Scan(&tables))
	switch {
	case err != nil:
		err = catalogError(cfg.Dir, err)
	case version > format && app == appID:
		err = fmt.Errorf("lake in %s has format %d and this program knows %d: use a newer millrace", cfg.Dir, version, format)
	case tables > 0 && app != appID:
		err = fmt.Errorf("catalogue %s is not one of millrace: choose another directory", path)
	case tables == 0 && !cfg.ReadOnly:
		if _, err = db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", appID, format)); err != nil {
			err = catalogError(cfg.Dir, err)
		}
	case tables == 0:
		err = fmt.Errorf("lake in %s: %w", cfg.Dir, ErrNotFound)
	default:
		err = checkCatalog(ctx, cfg.Dir, db)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// checkCatalog reads the whole catalogue, which has a row for each table, because SQLite only finds damage that it comes by.
func checkCatalog(ctx context.Context, dir string, db *sql.DB) error {
	var found string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&found); err != nil {
		return catalogError(dir, err)
	}
	if found != "ok" {
		return fmt.Errorf("catalogue %s is damaged: restore it from a backup: %s", filepath.Join(dir, catalogFile), strings.Join(strings.Fields(found), " "))
	}
	return nil
}

func catalogError(dir string, err error) error {
	path := filepath.Join(dir, catalogFile)
	var coded interface{ Code() int }
	switch {
	case errors.As(err, &coded) && (coded.Code()&0xff == 11 || coded.Code()&0xff == 26): // SQLITE_CORRUPT, SQLITE_NOTADB
		return fmt.Errorf("catalogue %s is damaged: restore it from a backup: %w", path, err)
	case cannotWrite(err):
		return fmt.Errorf("catalogue %s cannot be opened: check the permissions of its directory: %w", path, err)
	}
	return fmt.Errorf("open catalogue %s: %w", path, err)
}

// cannotWrite reports whether SQLite could not make or write one of its files.
func cannotWrite(err error) bool {
	var coded interface{ Code() int }
	return errors.As(err, &coded) && (coded.Code()&0xff == 8 || coded.Code()&0xff == 14) // SQLITE_READONLY, SQLITE_CANTOPEN
}

// Close closes the catalogue. Files that were written and not committed stay for Sweep.
func (l *Lake) Close() error {
	forgetFileSystem(l.fsName)
	return errors.Join(l.catalog.Close(), l.db.Close())
}

// CopyCatalogue copies catalog.db as it is at one moment into a file that is not there yet. The files of the tables that it lists are there for
// Config.KeepFor, as for any reader, and as long as nobody writes to the tables.
func (l *Lake) CopyCatalogue(ctx context.Context, path string) error {
	if _, err := l.db.ExecContext(ctx, "VACUUM INTO ?", path); err != nil {
		return fmt.Errorf("copy the catalogue of the lake in %s: %w", l.cfg.Dir, err)
	}
	return nil
}

// Name is a table's name in a lake.
type Name struct {
	Namespace string
	Table     string
}

// String returns namespace.table.
func (n Name) String() string { return n.Namespace + "." + n.Table }

func (n Name) identifier() table.Identifier { return table.Identifier{n.Namespace, n.Table} }

var validName = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_-]{0,99}$`)

// ValidNamespace returns an error unless s can name a namespace: letters, digits, _ and -, at most 100.
func ValidNamespace(s string) error {
	if !validName.MatchString(s) {
		return fmt.Errorf("%q cannot name a namespace of the lake: use 1 to 100 letters, digits, _ and -", s)
	}
	return nil
}

// Tables lists the lake's tables in order of their names.
func (l *Lake) Tables(ctx context.Context) ([]Name, error) {
	namespaces, err := l.catalog.ListNamespaces(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list the lake's namespaces: %w", err)
	}
	var names []Name
	for _, ns := range namespaces {
		for ident, err := range l.catalog.ListTables(ctx, ns) {
			if err != nil {
				return nil, fmt.Errorf("list the lake's tables: %w", err)
			}
			names = append(names, Name{ns[0], ident[len(ident)-1]})
		}
	}
	sort.Slice(names, func(i, j int) bool { return names[i].String() < names[j].String() })
	return names, nil
}

// Lookup opens an existing table for reading. The error matches ErrNotFound if there is none.
func (l *Lake) Lookup(ctx context.Context, name Name) (*Table, error) {
	t := &Table{lake: l, name: name}
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// Table opens the table for t in a namespace, and makes it when it does not exist. Nullable columns that t has and the
// table has not are added, and required columns that are nullable in t, or gone from it, become nullable. Another type, a new column
// that is required, and another partitioning are refused with an error that names them.
func (l *Lake) Table(ctx context.Context, namespace string, t plan.Table) (*Table, error) {
	if l.cfg.ReadOnly {
		return nil, ErrReadOnly
	}
	if err := ValidNamespace(namespace); err != nil {
		return nil, err
	}
	if !validName.MatchString(t.Name) {
		return nil, fmt.Errorf("%q cannot name a table of the lake: use 1 to 100 letters, digits, _ and -", t.Name)
	}
	columns := columnsOf(t)
	partition, err := partitionOf(t, columns)
	if err != nil {
		return nil, err
	}
	tbl := &Table{lake: l, name: Name{namespace, t.Name}, plan: t, columns: columns, partition: partition}
	err = tbl.load(ctx)
	if errors.Is(err, ErrNotFound) {
		if err = tbl.create(ctx); err == nil || errors.Is(err, catalog.ErrTableAlreadyExists) {
			err = tbl.load(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := tbl.conform(ctx); err != nil {
		return nil, err
	}
	return tbl, nil
}
