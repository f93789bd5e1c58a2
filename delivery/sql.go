package delivery

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/duckdb/duckdb-go/v2"

	"millrace/lake"
	"millrace/plan"
)

// SQLConfig says what SQL asks and how much a query may take. Lake and Serving are needed.
type SQLConfig struct {
	Lake *lake.Lake // not closed by SQL

	// Serving are the namespaces of the tables that are named without one. A table that several of them have, as all apps have dead letters, is
	// one with the rows of each.
	Serving func(ctx context.Context) (namespaces []string, err error)

	// Account is the tenant whose rows there are. A table that has no column for whose its rows are is not there. Default: the rows of all.
	Account string

	Memory int64 // bytes that a query may hold in memory; default 512 MiB
	Spill  int64 // bytes of what does not fit there, on disk; default 4 GiB

	// Fetch is how many bytes of a lake in S3 a query may copy to this machine. Default 4 GiB.
	Fetch int64

	Rows int64  // that a query gives at most; default all
	Temp string // directory for what a query keeps on disk while it runs; default that of the system
}

func (c SQLConfig) withDefaults() SQLConfig {
	if c.Memory <= 0 {
		c.Memory = 512 << 20
	}
	if c.Spill <= 0 {
		c.Spill = 4 << 30
	}
	if c.Fetch <= 0 {
		c.Fetch = 4 << 30
	}
	return c
}

func (c SQLConfig) validate() error {
	switch {
	case c.Lake == nil:
		return errors.New("delivery: SQLConfig.Lake is nil")
	case c.Serving == nil:
		return errors.New("delivery: SQLConfig.Serving is nil")
	}
	return nil
}

// SQL answers SELECT over the tables of a lake, by an embedded DuckDB that reads the Parquet files itself.
//
// Each query has a DuckDB of its own, in memory, that is closed to everything but the files of one snapshot of each table that the
// query names: no other file is read or written, no extension is loaded, no setting is changed. Rows that a correction has voided
// are left out.
//
// With an Account the rows of the others are not in that DuckDB: those of the account are copied into it before it is closed, and it is closed to the snapshots' files
// too. A predicate in a view would not do: whatever the statement computes, fails of and quotes in its error, or asks of a column's statistics, it could
// before the predicate had left the others' rows out. So a query takes as long, and as much of Memory and Spill, as all that the account has in the tables that
// it names.
//
// A table is named as quiz_submission, in the namespaces that serve; as quiz_submission@20180827174235, of a data version; or as
// raw.events, with its namespace.
type SQL struct{ cfg SQLConfig }

// NewSQL returns a SQL.
func NewSQL(cfg SQLConfig) (*SQL, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &SQL{cfg}, nil
}

// Query runs a SELECT and keeps its result, in memory and on disk, until the answer is closed. A fault of the statement is a
// *StatementError. The files of the snapshots are read before Query returns: within lake.Config.KeepFor, or it fails.
func (s *SQL) Query(ctx context.Context, text string) (*Answer, error) {
	q := &query{cfg: s.cfg, statement: newStatement(text), files: map[string]string{}}
	a, err := q.run(ctx)
	if err != nil {
		return nil, errors.Join(q.fault(ctx, err), q.close())
	}
	return a, nil
}

// query is a statement on its way through its own DuckDB.
type query struct {
	cfg       SQLConfig
	statement *statement
	dir       string // of what it keeps on disk
	db        *sql.DB
	conn      *sql.Conn
	fetched   int64             // bytes
	files     map[string]string // of snapshots, by their paths: where they are on this machine
}

const resultTable = `"millrace:result"` // no table of a lake has a colon in its name

func (q *query) run(ctx context.Context) (*Answer, error) {
	if err := q.open(ctx); err != nil {
		return nil, err
	}
	var tree string
	if err := q.conn.QueryRowContext(ctx, "SELECT json_serialize_sql(?::VARCHAR)::VARCHAR", q.statement.sql).Scan(&tree); err != nil {
		return nil, err
	}
	refs, err := q.statement.tables([]byte(tree))
	if err != nil {
		return nil, err
	}
	if err := q.define(ctx, refs); err != nil {
		return nil, err
	}
	if err := q.lock(ctx); err != nil {
		return nil, err
	}
	columns, err := q.columns(ctx)
	if err != nil {
		return nil, err
	}
	// The driver holds a result in memory as a whole. A table spills, and is read in parts.
	names := make([]string, len(columns))
	for i := range names {
		names[i] = cellName(i)
	}
	head := "CREATE TEMP TABLE " + resultTable + " AS SELECT * FROM (\n"
	text := head + q.statement.sql + "\n) AS r(" + strings.Join(names, ",") + ")"
	if q.cfg.Rows > 0 {
		text += " LIMIT " + strconv.FormatInt(q.cfg.Rows+1, 10)
	}
	if _, err := q.conn.ExecContext(ctx, text); err != nil {
		return nil, q.refer(err, len(head))
	}
	a := &Answer{Columns: columns, query: q}
	if err := q.conn.QueryRowContext(ctx, "SELECT count(*) FROM "+resultTable).Scan(&a.Rows); err != nil {
		return nil, err
	}
	if q.cfg.Rows > 0 && a.Rows > q.cfg.Rows {
		a.Rows, a.More = q.cfg.Rows, true
	}
	return a, nil
}

// open makes the query's DuckDB. It can still read files, but runs nothing of the statement until it is locked.
func (q *query) open(ctx context.Context) (err error) {
	if q.dir, err = os.MkdirTemp(q.cfg.Temp, "millrace-sql-*"); err != nil {
		return err
	}
	for _, d := range []string{q.spillDir(), q.outDir(), q.fetchDir()} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	options := url.Values{}
	for name, v := range map[string]string{
		"memory_limit":                 strconv.FormatInt(q.cfg.Memory>>10, 10) + "KiB",
		"max_temp_directory_size":      strconv.FormatInt(q.cfg.Spill>>10, 10) + "KiB",
		"temp_directory":               q.spillDir(),
		"threads":                      strconv.Itoa(runtime.GOMAXPROCS(0)),
		"autoinstall_known_extensions": "false",
		"autoload_known_extensions":    "false",
		"allow_community_extensions":   "false",
		"errors_as_json":               "true", // with the place in the statement
	} {
		options.Set(name, v)
	}
	connector, err := duckdb.NewConnector("?"+options.Encode(), nil)
	if err != nil {
		return fmt.Errorf("open DuckDB: %w", err)
	}
	q.db = sql.OpenDB(connector)
	q.db.SetMaxOpenConns(1)
	if q.conn, err = q.db.Conn(ctx); err != nil {
		return fmt.Errorf("open DuckDB: %w", err)
	}
	_, err = q.conn.ExecContext(ctx, "SET TimeZone = 'UTC'")
	return err
}

func (q *query) spillDir() string { return filepath.Join(q.dir, "spill") }
func (q *query) outDir() string   { return filepath.Join(q.dir, "out") }
func (q *query) fetchDir() string { return filepath.Join(q.dir, "fetched") }

// define makes a view of each table that the statement names, or for an account a copy of its rows.
func (q *query) define(ctx context.Context, refs []tableRef) error {
	if len(refs) == 0 {
		return nil
	}
	names, err := q.cfg.Lake.Tables(ctx)
	if err != nil {
		return err
	}
	done := map[string]bool{}
	for _, ref := range refs {
		key := strings.ToLower(ref.schema + "." + ref.name)
		if done[key] {
			continue
		}
		done[key] = true
		found, err := q.lookup(ctx, names, ref)
		if err != nil {
			return err
		}
		switch {
		case len(found) > 0:
			there, err := q.view(ctx, ref, found)
			if err != nil {
				return err
			}
			if !there {
				return q.unknown(ctx, names, ref)
			}
		case !ref.defined:
			return q.unknown(ctx, names, ref)
		}
	}
	return nil
}

var dataVersion = regexp.MustCompile(`^[0-9]+$`)

// lookup finds the tables that a reference means.
func (q *query) lookup(ctx context.Context, names []lake.Name, ref tableRef) (found []lake.Name, err error) {
	table, namespaces := ref.name, []string{ref.schema}
	if ref.schema == "" {
		name, version, versioned := strings.Cut(ref.name, "@")
		table = name
		switch {
		case versioned && dataVersion.MatchString(version):
			namespaces = []string{"v" + version}
		case versioned:
			namespaces = []string{version}
		default:
			if namespaces, err = q.cfg.Serving(ctx); err != nil {
				return nil, err
			}
		}
	}
	for _, namespace := range namespaces {
		want := lake.Name{Namespace: namespace, Table: table}
		if slices.Contains(names, want) {
			found = append(found, want)
			continue
		}
		// As in all of SQL, upper and lower case are the same.
		i := slices.IndexFunc(names, func(n lake.Name) bool {
			return strings.EqualFold(n.Namespace, want.Namespace) && strings.EqualFold(n.Table, want.Table)
		})
		if i >= 0 {
			found = append(found, names[i])
		}
	}
	return found, nil
}

// unknown names the tables that there are, as a statement would.
func (q *query) unknown(ctx context.Context, names []lake.Name, ref tableRef) error {
	serving, err := q.cfg.Serving(ctx)
	if err != nil {
		return err
	}
	var have []string
	for _, n := range names {
		if q.cfg.Account != "" {
			t, err := q.cfg.Lake.Lookup(ctx, n)
			if err != nil {
				return err
			}
			if AccountColumn(n, t.Columns()) == "" {
				continue
			}
		}
		version, versioned := strings.CutPrefix(n.Namespace, "v")
		switch {
		case slices.Contains(serving, n.Namespace):
			have = append(have, plainName(n.Table))
		case versioned && dataVersion.MatchString(version):
			have = append(have, n.Table+"@"+version)
		default:
			have = append(have, plainName(n.Namespace)+"."+plainName(n.Table))
		}
	}
	slices.Sort(have)
	have = slices.Compact(have)
	name := ref.name
	if ref.schema != "" {
		name = ref.schema + "." + ref.name
	}
	if len(have) == 0 {
		return q.statement.at(ref.at, fmt.Sprintf("there is no table %s: the lake has none yet", name))
	}
	return q.statement.at(ref.at, fmt.Sprintf("there is no table %s; the lake has %s", name, strings.Join(have, ", ")))
}

var plain = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// plainName is a name as it must be written.
func plainName(name string) string {
	if plain.MatchString(name) {
		return name
	}
	return identifier(name)
}

func identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
func literal(text string) string    { return `'` + strings.ReplaceAll(text, `'`, `''`) + `'` }

// rawNamespace is that of the raw lake. No instance has one of the name: its tables' columns are what the sensors' keys say.
const rawNamespace = "raw"

// AccountColumn is the column that says whose the rows of a table are; empty: none does. Columns that an app names may be called account, and say something else.
func AccountColumn(name lake.Name, columns []plan.Column) string {
	has := func(column string) bool {
		return slices.ContainsFunc(columns, func(c plan.Column) bool { return c.Name == column })
	}
	switch {
	case name.Namespace == rawNamespace && has("account"):
		return "account"
	case name.Namespace != rawNamespace && has("_id") && has("account_id"): // what the sink adds
		return "account_id"
	}
	return ""
}

// view defines a reference as what the newest snapshots of tables hold. It reports whether one of them is there for the account.
func (q *query) view(ctx context.Context, ref tableRef, names []lake.Name) (there bool, err error) {
	var rows []string
	for _, name := range names {
		from, err := q.rowsOf(ctx, name)
		if err != nil {
			return false, err
		}
		if from != "" {
			rows = append(rows, from)
		}
	}
	if len(rows) == 0 {
		return false, nil
	}
	at := identifier(ref.name)
	if ref.schema != "" {
		if _, err := q.conn.ExecContext(ctx, "CREATE SCHEMA IF NOT EXISTS "+identifier(ref.schema)); err != nil {
			return false, fmt.Errorf("table %s: %w", names[0], err)
		}
		at = identifier(ref.schema) + "." + at
	}
	kind := "VIEW"
	if q.cfg.Account != "" {
		kind = "TABLE"
	}
	if _, err := q.conn.ExecContext(ctx, "CREATE "+kind+" "+at+" AS "+strings.Join(rows, " UNION ALL BY NAME ")); err != nil {
		return false, fmt.Errorf("table %s: %w", names[0], err)
	}
	return true, nil
}

// rowsOf is the SELECT of the rows that the newest snapshot of a table has for the account; empty: the table is not there for it.
func (q *query) rowsOf(ctx context.Context, name lake.Name) (string, error) {
	t, err := q.cfg.Lake.Lookup(ctx, name)
	if err != nil {
		return "", err
	}
	column := AccountColumn(name, t.Columns())
	if q.cfg.Account != "" && column == "" {
		return "", nil
	}
	snapshot, err := t.Snapshot(ctx)
	if err != nil {
		return "", err
	}
	data, err := q.local(ctx, snapshot, snapshot.Data)
	if err != nil {
		return "", err
	}
	deletes, err := q.local(ctx, snapshot, snapshot.Deletes)
	if err != nil {
		return "", err
	}
	rows := "SELECT * FROM (" + viewOf(snapshot.Columns, data, deletes) + ")"
	if q.cfg.Account != "" {
		rows += " WHERE " + identifier(column) + " = " + literal(q.cfg.Account)
	}
	return rows, nil
}

// local has the files of a snapshot on this machine.
func (q *query) local(ctx context.Context, s *lake.Snapshot, files []lake.SnapshotFile) ([]localFile, error) {
	out := make([]localFile, len(files))
	for i, f := range files {
		if path, done := q.files[f.Path]; done { // the statement names the table by two names
			out[i] = localFile{path, f.Sequence}
			continue
		}
		// What has a name of its own here is not fetched. It costs nothing.
		if strings.Contains(f.Path, "://") {
			if q.fetched += f.Bytes; q.fetched > q.cfg.Fetch {
				return nil, fmt.Errorf("table %s is in S3, and its files would have to be fetched: more than the %d MB that a query may fetch; ask an engine that reads from there, such as Trino",
					s.Table, q.cfg.Fetch>>20)
			}
		}
		path, err := q.cfg.Lake.Local(ctx, f, q.fetchDir())
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", s.Table, err)
		}
		if strings.ContainsAny(path, "*?[") { // DuckDB would look for files that match
			link := filepath.Join(q.fetchDir(), filepath.Base(path))
			if err := os.Symlink(path, link); err != nil && !errors.Is(err, os.ErrExist) {
				return nil, err
			}
			path = link
		}
		out[i] = localFile{path, f.Sequence}
		q.files[f.Path] = path
	}
	return out, nil
}

// lock closes the DuckDB to everything but the snapshots' files, and one folder for results. What an account has is in it already, and its snapshots' files hold
// the rows of others too.
func (q *query) lock(ctx context.Context) error {
	var paths []string
	if q.cfg.Account == "" {
		for _, f := range slices.Sorted(maps.Values(q.files)) {
			paths = append(paths, literal(f))
		}
	}
	for _, statement := range []string{
		"SET allowed_paths = [" + strings.Join(paths, ",") + "]",
		"SET allowed_directories = [" + literal(q.outDir()) + "]",
		"SET enable_external_access = false",
		"SET lock_configuration = true",
	} {
		if _, err := q.conn.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("close DuckDB to other files: %w", err)
		}
	}
	return nil
}

// columns are the names of the result's columns. Most faults of a statement show here.
func (q *query) columns(ctx context.Context) (names []string, err error) {
	err = q.conn.Raw(func(c any) (err error) {
		prepared, err := c.(driver.ConnPrepareContext).PrepareContext(ctx, q.statement.sql)
		if err != nil {
			return q.refer(err, 0)
		}
		defer func() { err = errors.Join(err, prepared.Close()) }()
		stmt := prepared.(*duckdb.Stmt)
		if n := stmt.NumInput(); n > 0 {
			return q.statement.at(-1, "the statement has parameters, and there are no values for them")
		}
		n, err := stmt.ColumnCount()
		for i := 0; err == nil && i < n; i++ {
			var name string
			name, err = stmt.ColumnName(i)
			names = append(names, name)
		}
		return err
	})
	return names, err
}

func (q *query) close() error {
	var errs []error
	if q.conn != nil {
		errs = append(errs, q.conn.Close())
	}
	if q.db != nil {
		errs = append(errs, q.db.Close())
	}
	if q.dir != "" {
		errs = append(errs, os.RemoveAll(q.dir))
	}
	return errors.Join(errs...)
}

// answered is what DuckDB says of an error.
type answered struct {
	Type     string `json:"exception_type"`
	Message  string `json:"exception_message"`
	Position string `json:"position"`
}

func parseAnswered(err error) (answered, bool) {
	var a answered
	text := err.Error()
	from := strings.IndexByte(text, '{')
	if from < 0 || json.NewDecoder(strings.NewReader(text[from:])).Decode(&a) != nil || a.Message == "" {
		return a, false
	}
	return a, true
}

// refer makes an error of a text in which the statement begins at an offset one of the statement.
func (q *query) refer(err error, from int) error {
	a, ok := parseAnswered(err)
	switch {
	case !ok:
		return err
	case a.Type == "Binder", a.Type == "Catalog", a.Type == "Parser", a.Type == "Conversion", a.Type == "Out of Range", a.Type == "Invalid Input":
		at := offset(json.Number(a.Position))
		if at >= 0 {
			at -= from
		}
		return q.statement.at(at, a.Message)
	}
	return err
}

// fault is an error of the query as a person can act on it.
func (q *query) fault(ctx context.Context, err error) error {
	a, ok := parseAnswered(err)
	var fault *StatementError
	switch {
	case errors.As(err, &fault):
		return fault
	case ctx.Err() != nil && (a.Type == "INTERRUPT" || errors.Is(err, ctx.Err())):
		return context.Cause(ctx)
	case ok && a.Type == "Out of Memory":
		return fmt.Errorf("the query needs more than %d MB of memory and %d MB of disk, its limits: %w", q.cfg.Memory>>20, q.cfg.Spill>>20, ErrTooLarge)
	case ok:
		return errors.New(a.Message)
	}
	return err
}

// ErrTooLarge means that a query needs more memory or disk than it may have.
var ErrTooLarge = errors.New("it is too large: select fewer columns or days, or give it more")
