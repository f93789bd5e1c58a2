package lake

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	icebergsql "github.com/apache/iceberg-go/catalog/sql"
	"github.com/apache/iceberg-go/table"
)

// catalogue is what knows the newest state of each table.
type catalogue interface {
	catalog.Catalog
	Close() error

	// claimed returns what is to be changed of tbl so that commits which were prepared before are refused.
	claimed(tbl *table.Table) ([]table.Update, error)

	// inFlight is how long a commit may take from the writing of its files until it comes into effect: one of a process that has ended, or of
	// one that pins a snapshot of a table beside its writer.
	inFlight() time.Duration
}

// sqlCatalogue is the one in catalog.db. It checks a commit's requirements here, and makes it in one transaction of SQLite.
type sqlCatalogue struct{ *icebergsql.Catalog }

// propFence is another one after each fence, so that the requirement unchanged does not hold any more.
const propFence = keyPrefix + "fence"

func (sqlCatalogue) claimed(*table.Table) ([]table.Update, error) {
	return []table.Update{table.NewSetPropertiesUpdate(iceberg.Properties{propFence: newLakeID()})}, nil
}

func (sqlCatalogue) inFlight() time.Duration { return inFlight }

// catalogOf is the REST catalogue that the lake is to use, zero when its tables are in db.
func catalogOf(ctx context.Context, cfg Config, db *sql.DB, known marker) (REST, error) {
	if known.Catalog == nil {
		switch {
		case cfg.Catalog.URI != "":
		case cfg.Catalog.place() != REST{}:
			return REST{}, errors.New("something of a REST catalogue is given, and not its address: give that too")
		default:
			return REST{}, nil
		}
		tables, err := countTables(ctx, db)
		if err != nil {
			return REST{}, catalogError(cfg.Dir, err)
		}
		if tables > 0 || known.ID != "" {
			where := "on the local disk"
			if known.ID != "" {
				where = "in " + known.Warehouse
			}
			return REST{}, fmt.Errorf("the lake in %s has its tables %s, and a catalogue of its own: leave %s out, or choose another directory", cfg.Dir, where, cfg.Catalog.URI)
		}
		return cfg.Catalog, nil
	}
	at, is := *known.Catalog, cfg.Catalog
	at.Token, at.Credential = is.Token, is.Credential
	for _, c := range []struct {
		what, was, is string
	}{{"warehouse", at.Warehouse, is.Warehouse}, {"namespace", at.Namespace, is.Namespace}} {
		if c.is != "" && c.is != c.was {
			return REST{}, fmt.Errorf("the lake in %s is in %s %q of catalogue %s, not in %q: leave that out, or choose another directory", cfg.Dir, c.what, c.was, at.URI, c.is)
		}
	}
	for _, c := range []struct{ known, is *string }{{&at.URI, &is.URI}, {&at.OAuth2, &is.OAuth2}, {&at.Scope, &is.Scope}} {
		if *c.is != "" {
			*c.known = *c.is
		}
	}
	return at, nil
}

// settle makes the lake one of the catalogue's, or finds that it is, and puts what is to be remembered into next.
func (c *restCatalogue) settle(ctx context.Context, cfg Config, known marker, next *marker) error {
	c.lake = next.ID
	at := c.at.place()
	next.Catalog = &at
	if known.Catalog == nil {
		foreign, err := c.foreign(ctx)
		if err == nil && foreign != "" {
			err = fmt.Errorf("namespace %s of catalogue %s is another lake's: give this one a namespace of its own to have its namespaces in", foreign, c.at.URI)
		}
		return err
	}
	own, err := c.ListNamespaces(ctx, nil)
	if err != nil {
		return fmt.Errorf("look for the lake in %s: %w", cfg.Dir, err)
	}
	if len(own) > 0 {
		next.Tables = true
		c.tables = true
		return nil
	}
	if known.Catalog.URI != at.URI {
		return fmt.Errorf("catalogue %s has no tables of the lake in %s, which is in the one at %s: give that address, or choose another directory", at.URI, cfg.Dir, known.Catalog.URI)
	}
	if known.Tables {
		return fmt.Errorf("catalogue %s has no tables of the lake in %s any more: restore it from a backup, or name the one that has them", at.URI, cfg.Dir)
	}
	return nil
}

// remembered keeps in db whether the catalogue has tables of the lake, so that one that has lost them is not taken for a new one.
func (c *restCatalogue) remembered(ctx context.Context, tables bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tables == tables {
		return nil
	}
	m, err := readMarker(ctx, c.db)
	if err == nil {
		m.Tables = tables
		err = writeMarker(ctx, c.db, m)
	}
	if err != nil {
		return catalogError(c.dir, err)
	}
	c.tables = tables
	return nil
}

// openLocal opens a warehouse on the local disk whose tables another catalogue lists. It writes files there too, so the place is the same
// for both: such a lake cannot be moved.
func openLocal(ctx context.Context, cfg Config, db *sql.DB, known marker, remote *restCatalogue) (string, fileSystem, error) {
	dir := filepath.Join(cfg.Dir, warehouse)
	base := fileLocation(dir)
	if known.Warehouse != "" && known.Warehouse != base {
		return "", nil, fmt.Errorf("the lake in %s was made as %s, where catalogue %s has its files: move it back", cfg.Dir, known.Warehouse, remote.at.URI)
	}
	remote.lake = known.ID
	if !cfg.ReadOnly {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", nil, fmt.Errorf("make lake directory %s: %w: choose a directory that can be written", dir, err)
		}
		next := known
		next.Format, next.Warehouse = format, base
		if next.ID == "" {
			next.ID = newLakeID()
		}
		if err := remote.settle(ctx, cfg, known, &next); err != nil {
			return "", nil, err
		}
		if next.differs(known) {
			if err := writeMarker(ctx, db, next); err != nil {
				return "", nil, catalogError(cfg.Dir, err)
			}
		}
	}
	return base, &localFiles{dir: dir, base: base, fault: cfg.fault}, nil
}

// s3 is how the catalogue says that S3 is reached, or how s does if it does not say. It may not contradict what was asked for.
func (c *restCatalogue) s3(s, asked S3) (S3, error) {
	for _, f := range []struct {
		keys         []string
		what         string
		value, asked *string
	}{{[]string{"s3.endpoint"}, "endpoint", &s.Endpoint, &asked.Endpoint}, {[]string{"s3.region", "client.region"}, "region", &s.Region, &asked.Region}} {
		for _, key := range f.keys {
			said, must := c.config.overrides[key]
			if !must {
				said = c.config.defaults[key]
			}
			switch {
			case said == "":
				continue
			case must && *f.asked != "" && strings.TrimRight(*f.asked, "/") != strings.TrimRight(said, "/"):
				return s, fmt.Errorf("catalogue %s prescribes %s %s for S3 (%s), and %s is given: leave that out, or have the catalogue changed", c.at.URI, f.what, said, key, *f.asked)
			case must, *f.value == "":
				*f.value = said
			}
			break
		}
	}
	return s, nil
}
