package lake

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// markerFile is in an s3:// warehouse and says which catalogue it is of. Two catalogues that shared a warehouse would sweep each
// other's files away.
const markerFile = "millrace-lake.json"

// marker is what a catalogue remembers of an s3:// warehouse, and in part what the warehouse remembers of the catalogue.
type marker struct {
	Format    int    `json:"format"`
	ID        string `json:"id"`
	Warehouse string `json:"warehouse"`
	S3               // only in the catalogue: the same bucket may have several addresses

	// Only in catalog.db, when the catalogue is another.
	Catalog *REST `json:"catalog,omitempty"`
	Tables  bool  `json:"tables,omitempty"` // there were some
}

// Places are where a lake is that is not all in its directory, by URLs. Empty: it is there.
type Places struct {
	Files   string // s3://bucket/prefix
	Catalog string // of the Iceberg REST catalogue that lists its tables
}

// ReadPlaces returns the places of the lake in a directory. It asks neither of them.
func ReadPlaces(ctx context.Context, dir string) (p Places, err error) {
	cfg := Config{Dir: dir, ReadOnly: true}.withDefaults()
	db, err := openCatalog(ctx, cfg)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	known, err := readMarker(ctx, db)
	if err != nil {
		return p, catalogError(dir, err)
	}
	if validWarehouse.MatchString(known.Warehouse) {
		p.Files = known.Warehouse
	}
	if known.Catalog != nil {
		p.Catalog = known.Catalog.URI
	}
	return p, nil
}

// differs says whether m is not what is known.
func (m marker) differs(known marker) bool { return !bytes.Equal(encodeMarker(m), encodeMarker(known)) }

var validWarehouse = regexp.MustCompile(`^s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[a-zA-Z0-9_][a-zA-Z0-9_.=-]*)*)$`)

// ValidWarehouse returns an error unless s is s3://bucket or s3://bucket/prefix.
func ValidWarehouse(s string) error {
	if !validWarehouse.MatchString(strings.TrimRight(s, "/")) {
		return fmt.Errorf("%q is no place for a lake: want s3://bucket or s3://bucket/prefix, of letters, digits, dots, hyphens and underscores", s)
	}
	return nil
}

// openWarehouse finds where the files are and settles, for a writer, that the place is this catalogue's alone.
func openWarehouse(ctx context.Context, cfg Config, db *sql.DB, known marker, remote *restCatalogue) (base string, fsys fileSystem, err error) {
	if remote != nil && cfg.Warehouse == "" && (known.Warehouse == "" || strings.HasPrefix(known.Warehouse, "file:")) {
		return openLocal(ctx, cfg, db, known, remote)
	}
	if cfg.Warehouse == "" && known.Warehouse == "" {
		dir := filepath.Join(cfg.Dir, warehouse)
		if !cfg.ReadOnly {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return "", nil, fmt.Errorf("make lake directory %s: %w: choose a directory that can be written", dir, err)
			}
		}
		base, err := madeAt(ctx, db)
		if err != nil {
			return "", nil, catalogError(cfg.Dir, err)
		}
		if base == "" {
			base = fileLocation(dir)
		}
		return base, &localFiles{dir: dir, base: base, fault: cfg.fault}, nil
	}
	next := known
	if cfg.Warehouse != "" {
		if err := ValidWarehouse(cfg.Warehouse); err != nil {
			return "", nil, err
		}
		next.Warehouse = strings.TrimRight(cfg.Warehouse, "/")
	}
	if known.Warehouse != "" && next.Warehouse != known.Warehouse {
		return "", nil, fmt.Errorf("the lake in %s keeps its files in %s, not in %s: leave that out, or choose another directory", cfg.Dir, known.Warehouse, next.Warehouse)
	}
	if cfg.S3.Endpoint != "" {
		next.Endpoint = cfg.S3.Endpoint
	}
	if cfg.S3.Region != "" {
		next.Region = cfg.S3.Region
	}
	if remote != nil {
		if next.S3, err = remote.s3(next.S3, cfg.S3); err != nil {
			return "", nil, err
		}
	}
	bucket := validWarehouse.FindStringSubmatch(next.Warehouse)[1]
	files, err := newS3Files(next.S3, bucket, cfg.Dir, cfg.fault)
	if err != nil {
		return "", nil, err
	}
	if !cfg.ReadOnly {
		err = settle(ctx, cfg, db, files, known, next, remote)
	} else if remote != nil {
		remote.lake = known.ID
	}
	return next.Warehouse, files, err
}

// madeAt is where the warehouse was when its tables were made; empty when there are none.
func madeAt(ctx context.Context, db *sql.DB) (string, error) {
	if n, err := countTables(ctx, db); err != nil || n == 0 {
		return "", err
	}
	var namespace, table, metadata string
	err := db.QueryRowContext(ctx, "SELECT table_namespace, table_name, metadata_location FROM iceberg_tables LIMIT 1").Scan(&namespace, &table, &metadata)
	if err != nil {
		return "", err
	}
	at := strings.LastIndex(metadata, "/"+namespace+"/"+table+"/metadata/")
	if at < 0 {
		return "", fmt.Errorf("metadata of table %s.%s is at %s, where no table can be: restore the catalogue from a backup", namespace, table, metadata)
	}
	return metadata[:at], nil
}

// settle makes the warehouse the catalogue's, or finds that it is. The catalogue is written first: a crash in between leaves a warehouse
// that nobody has, which the next start completes.
func settle(ctx context.Context, cfg Config, db *sql.DB, files *s3Files, known, next marker, remote *restCatalogue) error {
	tables, err := countTables(ctx, db)
	if err != nil {
		return catalogError(cfg.Dir, err)
	}
	if known.ID == "" {
		if tables > 0 {
			return fmt.Errorf("the lake in %s has its tables on the local disk: leave %s out, or choose another directory", cfg.Dir, next.Warehouse)
		}
		next.Format, next.ID = format, newLakeID()
	}
	found, err := foundMarker(files, next.Warehouse)
	if err == nil && found.ID != "" && found.ID != next.ID {
		err = foreignWarehouse(cfg, next)
	}
	if err == nil && remote != nil {
		err = remote.settle(ctx, cfg, known, &next)
	}
	switch {
	case err != nil:
		return err
	case found.ID == "" && (tables > 0 || next.Tables):
		return fmt.Errorf("%s has no %s, though tables of the lake in %s are there: restore it, or name the server that has it", next.Warehouse, markerFile, cfg.Dir)
	}
	if next.differs(known) {
		if err := writeMarker(ctx, db, next); err != nil {
			return catalogError(cfg.Dir, err)
		}
	}
	if found.ID != "" {
		return nil
	}
	err = files.create(next.Warehouse+"/"+markerFile, encodeMarker(marker{Format: next.Format, ID: next.ID, Warehouse: next.Warehouse}))
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if found, err = foundMarker(files, next.Warehouse); err == nil && found.ID != next.ID {
		err = foreignWarehouse(cfg, next) // another catalogue was first
	}
	return err
}

func newLakeID() string {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		panic(err) // documented never to fail
	}
	return hex.EncodeToString(id[:])
}

func foreignWarehouse(cfg Config, m marker) error {
	return fmt.Errorf("%s belongs to a lake whose catalogue is not in %s: use the directory that it was made with, or choose another place", m.Warehouse, cfg.Dir)
}

func encodeMarker(m marker) []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and a number
	}
	return b
}

// foundMarker reads the marker in a warehouse; it is empty when there is none.
func foundMarker(files *s3Files, warehouse string) (m marker, err error) {
	name := warehouse + "/" + markerFile
	b, err := files.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("look for the lake at %s: %w", warehouse, err)
	}
	if err := json.Unmarshal(b, &m); err != nil || m.ID == "" {
		return m, fmt.Errorf("%s is damaged: restore it from a backup", name)
	}
	if m.Format > format {
		return m, fmt.Errorf("lake at %s has format %d and this program knows %d: use a newer millrace", warehouse, m.Format, format)
	}
	return m, nil
}

// The catalogue's marker is in a table of its own, which a lake on the local disk does not have.
const markerTable = "millrace_warehouse"

func readMarker(ctx context.Context, db *sql.DB) (m marker, err error) {
	var n int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE name = ?", markerTable).Scan(&n); err != nil || n == 0 {
		return m, err
	}
	var text string
	if err := db.QueryRowContext(ctx, "SELECT marker FROM "+markerTable).Scan(&text); err != nil {
		return m, err
	}
	err = json.Unmarshal([]byte(text), &m)
	return m, err
}

func writeMarker(ctx context.Context, db *sql.DB, m marker) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for _, statement := range []string{"CREATE TABLE IF NOT EXISTS " + markerTable + " (marker TEXT NOT NULL)", "DELETE FROM " + markerTable} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO "+markerTable+" VALUES (?)", string(encodeMarker(m))); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func countTables(ctx context.Context, db *sql.DB) (n int, err error) {
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE name = 'iceberg_tables'").Scan(&n); err != nil || n == 0 {
		return 0, err
	}
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM iceberg_tables").Scan(&n)
	return n, err
}
