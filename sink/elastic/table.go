package elastic

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/zeebo/xxh3"

	"millrace/plan"
)

// RowID is the field that holds a row's id, because a document may not have a field _id. Documents can be sorted by it.
const RowID = "row_id"

// table is a table of the plan as the target has it.
type table struct {
	plan.Table
	mapping json.RawMessage
	names   [][]byte    // of the columns, as JSON with the colon
	cells   []plan.Cell // reused by append
}

func newTable(p *plan.Table) (table, error) {
	t := table{Table: *p, cells: make([]plan.Cell, len(p.Schema.Columns))}
	if p.AppendOnly {
		return t, nil
	}
	properties := map[string]any{RowID: map[string]string{"type": "keyword"}}
	for _, c := range plan.MetaColumns {
		if c.Name != "_id" {
			properties[c.Name] = map[string]string{"type": fieldType(c.Type)}
		}
	}
	for _, c := range p.Schema.Columns {
		if _, ok := properties[c.Name]; ok || reserved(c.Name) {
			return t, fmt.Errorf("elastic sink: table %s has a column %s, which is a field of every document: rename the column", p.Name, c.Name)
		}
		properties[c.Name] = map[string]string{"type": fieldType(c.Type)}
		name, err := json.Marshal(c.Name)
		if err != nil {
			return t, fmt.Errorf("elastic sink: name of column %s of %s: %w", c.Name, p.Name, err)
		}
		t.names = append(t.names, append(name, ':'))
	}
	var err error
	t.mapping, err = json.Marshal(map[string]any{"dynamic": "strict", "properties": properties})
	return t, err
}

// reserved reports the names that the targets keep for themselves.
func reserved(name string) bool {
	switch name {
	case "_id", "_index", "_source", "_type", "_routing", "_version", "_seq_no", "_primary_term", "_field_names", "_ignored",
		"_doc_count", "_size", "_tier", "_nested_path":
		return true
	}
	return false
}

func fieldType(t plan.Type) string {
	switch t {
	case plan.Bool:
		return "boolean"
	case plan.Long:
		return "long"
	case plan.Double:
		return "double"
	case plan.Timestamp:
		return "date"
	case plan.Bytes:
		return "binary"
	}
	return "keyword"
}

// IndexName is the index of a table's rows of one tenant and data version: quiz_submission--deepthought-prod--20180827174235,
// or --unversioned. Upper case becomes lower, and what an index name cannot have becomes _; such a name, and one in which the
// account has a hyphen of its own, ends with a hash of the exact names, so that no two tenants share an index.
func IndexName(table, account, env, dataVersion string) string {
	if dataVersion == "" {
		dataVersion = unversioned
	}
	exact := table + "--" + account + "-" + env + "--" + dataVersion
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '_'
	}, exact)
	name = strings.TrimLeft(name, "_-.+")
	const limit = 200 // of the 255 bytes that there may be
	if name == exact && !strings.Contains(account, "-") && len(name) <= limit {
		return name
	}
	key := strings.Join([]string{table, account, env, dataVersion}, "\x00")
	return fmt.Sprintf("%s--%016x", name[:min(len(name), limit)], xxh3.HashString(key))
}

// index is the index that a row of a table belongs to.
func (s *Sink) index(table string, r plan.Row) string {
	account, env := r.Account, r.Env
	if account == "" {
		account = s.config.Account
	}
	if env == "" {
		env = s.config.Env
	}
	return IndexName(table, account, env, s.config.Suffix)
}
