package index

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// index is one index as the catalog has it. It is not changed once it is in a catalog.
type index struct {
	Number   int // its table is t<Number>; never reused while the file is open
	Name     string
	UUID     string
	Created  int64           // milliseconds since 1970
	Settings json.RawMessage // as the client sent them; they have no effect
	mapping  *mapping
	aliases  map[string]alias
}

// alias is another name of an index.
type alias struct {
	IsWrite *bool `json:"is_write_index,omitempty"`
}

// Names of users never get into SQL: tables and columns are numbered.
func (x *index) table() string { return fmt.Sprintf("t%d", x.Number) }

// catalog is all indices. It is replaced, never changed: see Server.catalog.
type catalog struct {
	indices map[string]*index
}

func (c *catalog) clone() *catalog { return &catalog{maps.Clone(c.indices)} }

// with returns a catalog in which x takes the place of the index with its name.
func (c *catalog) with(x *index) *catalog {
	next := c.clone()
	next.indices[x.Name] = x
	return next
}

func (x *index) withMapping(m *mapping) *index {
	next := *x
	next.mapping = m
	return &next
}

// names returns the names of all indices in order.
func (c *catalog) names() []string { return slices.Sorted(maps.Keys(c.indices)) }

// aliased returns the indices with the given alias, in order of name.
func (c *catalog) aliased(name string) []*index {
	var out []*index
	for _, n := range c.names() {
		if _, ok := c.indices[n].aliases[name]; ok {
			out = append(out, c.indices[n])
		}
	}
	return out
}

// lenience is what a request says about targets that are not there.
type lenience struct {
	ignoreUnavailable bool // a missing name is as if it were not given
	refuseNone        bool // a wildcard that matches nothing is an error
}

// resolve returns the indices that a target names: a comma list of indices, aliases and wildcards; a leading minus takes away.
func (c *catalog) resolve(target string, l lenience) ([]*index, error) {
	found := map[string]*index{}
	if target == "" {
		target = "_all"
	}
	for name := range strings.SplitSeq(target, ",") {
		without, minus := strings.CutPrefix(name, "-")
		if minus {
			name = without
		}
		var hits []*index
		switch {
		case name == "_all":
			name = "*"
			fallthrough
		case strings.Contains(name, "*"):
			for _, x := range c.indices {
				if matches(name, x.Name) || slices.ContainsFunc(slices.Collect(maps.Keys(x.aliases)), func(a string) bool { return matches(name, a) }) {
					hits = append(hits, x)
				}
			}
			if len(hits) == 0 && l.refuseNone {
				return nil, notFound(name)
			}
		case c.indices[name] != nil:
			hits = []*index{c.indices[name]}
		default:
			hits = c.aliased(name)
			if len(hits) == 0 && !l.ignoreUnavailable {
				return nil, notFound(name)
			}
		}
		for _, x := range hits {
			if minus {
				delete(found, x.Name)
			} else {
				found[x.Name] = x
			}
		}
	}
	out := make([]*index, 0, len(found))
	for _, n := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[n])
	}
	return out, nil
}

// writable returns the one index that documents for name go to; nil when there is none and it can be made.
func (c *catalog) writable(name string) (*index, error) {
	if x, ok := c.indices[name]; ok {
		return x, nil
	}
	named := c.aliased(name)
	if len(named) == 1 {
		if w := named[0].aliases[name].IsWrite; w == nil || *w {
			return named[0], nil
		}
	}
	for _, x := range named {
		if w := x.aliases[name].IsWrite; w != nil && *w {
			return x, nil
		}
	}
	if len(named) > 0 {
		return nil, illegal("no write index is defined for alias [%s]. The write index may be explicitly disabled using is_write_index=false or the alias points to multiple indices without one being designated as a write index", name)
	}
	return nil, checkName(name)
}

// matches reports whether s is what a pattern with stars stands for.
func matches(pattern, s string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, first)
	if !ok {
		return false
	}
	for {
		part, next, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(s, part)
		}
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(part):], next
	}
}

// checkName refuses what Elasticsearch does not take as the name of an index.
func checkName(name string) error {
	bad := func(why string) error {
		e := refuse(400, "invalid_index_name_exception", "Invalid index name [%s], %s", name, why)
		e.Index = name
		return e
	}
	switch {
	case name == "" || name == "." || name == "..":
		return bad("must not be empty, '.' or '..'")
	case strings.ToLower(name) != name:
		return bad("must be lowercase")
	case strings.ContainsAny(name, `\/*?"<>|, #:`) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return bad(`must not contain the following characters ['\','/','*','?','"','<','>','|',' ',',','#',':']`)
	case name[0] == '_' || name[0] == '-' || name[0] == '+':
		return bad("must not start with '_', '-', or '+'")
	case len(name) > 255:
		return bad("index name is too long")
	}
	return nil
}

// Catalog tables. layout is the version of everything this package stores; a file with a higher one is refused.
const (
	layout = 1
	schema = `
		CREATE TABLE IF NOT EXISTS layout (version INTEGER);
		CREATE TABLE IF NOT EXISTS indices (number INTEGER, name VARCHAR, uuid VARCHAR, created BIGINT, settings VARCHAR, mapping VARCHAR, aliases VARCHAR);`
)

// documents is the table of one index. Rows with deleted are tombstones: a version without a document.
const documents = `CREATE TABLE %s (
	h BIGINT NOT NULL, -- hash of id: what look-ups scan, several times cheaper than the ids themselves
	id VARCHAR NOT NULL, version BIGINT NOT NULL, seq BIGINT NOT NULL, deleted BOOLEAN NOT NULL, source VARCHAR USING COMPRESSION zstd%s)`

func loadCatalog(ctx context.Context, db *sql.DB) (*catalog, error) {
	c := &catalog{map[string]*index{}}
	rows, err := db.QueryContext(ctx, "SELECT number, name, uuid, created, settings, mapping, aliases FROM indices")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		x := &index{mapping: newMapping()}
		var settings, mapping, aliases string
		if err := rows.Scan(&x.Number, &x.Name, &x.UUID, &x.Created, &settings, &mapping, &aliases); err != nil {
			return nil, err
		}
		x.Settings = json.RawMessage(settings)
		if err := json.Unmarshal([]byte(mapping), x.mapping); err != nil {
			return nil, fmt.Errorf("mapping of index %s: %w", x.Name, err)
		}
		if err := json.Unmarshal([]byte(aliases), &x.aliases); err != nil {
			return nil, fmt.Errorf("aliases of index %s: %w", x.Name, err)
		}
		c.indices[x.Name] = x
	}
	return c, rows.Err()
}

// store writes the catalog's row of x.
func (x *index) store(ctx context.Context, tx *sql.Tx) error {
	mapping, err := json.Marshal(x.mapping)
	if err != nil {
		return err
	}
	aliases, err := json.Marshal(x.aliases)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM indices WHERE number = $1", x.Number); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO indices VALUES ($1, $2, $3, $4, $5, $6, $7)",
		x.Number, x.Name, x.UUID, x.Created, string(x.Settings), string(mapping), string(aliases))
	return err
}
