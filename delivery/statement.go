package delivery

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// StatementError is a fault of a statement, where it is.
type StatementError struct {
	Line, Column int // from 1 on, in characters; 0 when it is not known
	Message      string
}

func (e *StatementError) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// statement is one SELECT as a person wrote it, and as DuckDB reads it: name@version is quoted there, and a semicolon at the end is a blank.
type statement struct {
	text   string
	sql    string
	quotes []int // offsets into sql of the quotes that are not in text
}

// newStatement does what DuckDB's parser cannot be told to.
func newStatement(text string) *statement {
	s := &statement{text: text}
	var b []byte
	var ends []int // semicolons at the end
	for rest := text; rest != ""; {
		n := token(rest)
		word := rest[:n]
		rest = rest[n:]
		switch version := versionOf(word, rest); {
		case version != "":
			s.quotes = append(s.quotes, len(b))
			b = append(b, `"`+word+version...)
			s.quotes = append(s.quotes, len(b))
			b = append(b, '"')
			rest = rest[len(version):]
			ends = nil
		case word == ";":
			ends = append(ends, len(b))
			b = append(b, ';')
		default:
			if !blank(word) {
				ends = nil
			}
			b = append(b, word...)
		}
	}
	for _, i := range ends {
		b[i] = ' '
	}
	s.sql = string(b)
	return s
}

// token is the length of the first token of s: a name or number, a quoted text, a comment, white space, or one other character.
func token(s string) int {
	until := func(from int, end string) int {
		if i := strings.Index(s[from:], end); i >= 0 {
			return from + i + len(end)
		}
		return len(s)
	}
	c := s[0]
	switch {
	case strings.HasPrefix(s, "--"):
		return until(2, "\n")
	case strings.HasPrefix(s, "/*"):
		return comment(s)
	case c == '"':
		return quoted(s, 0, false)
	case c == '\'':
		return quoted(s, 0, false)
	case (c == 'e' || c == 'E') && len(s) > 1 && s[1] == '\'':
		return quoted(s, 1, true)
	case c == '$':
		n := 1
		for n < len(s) && nameByte(s[n]) {
			n++
		}
		if n < len(s) && s[n] == '$' {
			return until(n+1, s[:n+1])
		}
		return n
	case nameByte(c):
		n := 1
		for n < len(s) && (nameByte(s[n]) || s[n] == '$') {
			n++
		}
		return n
	}
	n := 0
	for n < len(s) && strings.IndexByte(" \t\r\n\f\v", s[n]) >= 0 {
		n++
	}
	return max(n, 1)
}

// comment is the length of the comment that s begins with. They nest.
func comment(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], "/*"):
			depth++
			i++
		case strings.HasPrefix(s[i:], "*/"):
			if depth--; depth == 0 {
				return i + 2
			}
			i++
		}
	}
	return len(s)
}

// quoted is the length of s up to the end of the text whose quote is at from.
func quoted(s string, from int, escapes bool) int {
	for i := from + 1; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			i++
		case s[i] == s[from] && i+1 < len(s) && s[i+1] == s[from]:
			i++
		case s[i] == s[from]:
			return i + 1
		}
	}
	return len(s)
}

func nameByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf
}

func blank(token string) bool {
	return strings.TrimSpace(token) == "" || strings.HasPrefix(token, "--") || strings.HasPrefix(token, "/*")
}

// versionOf is the @version that follows a name; empty when none does.
func versionOf(name, rest string) string {
	if !nameByte(name[0]) || name[0] >= '0' && name[0] <= '9' || len(rest) < 2 || rest[0] != '@' || !nameByte(rest[1]) {
		return ""
	}
	return rest[:1+token(rest[1:])]
}

// at is an error at an offset into sql.
func (s *statement) at(offset int, message string) error {
	if offset < 0 || offset > len(s.sql) {
		return &StatementError{Message: message}
	}
	n := 0
	for _, q := range s.quotes {
		if q < offset {
			n++
		}
	}
	before := s.text[:min(offset-n, len(s.text))]
	line := before[strings.LastIndexByte(before, '\n')+1:]
	return &StatementError{Line: 1 + strings.Count(before, "\n"), Column: 1 + utf8.RuneCountInString(line), Message: message}
}

// tableRef is a table that a statement names.
type tableRef struct {
	schema, name string
	at           int  // offset into sql
	defined      bool // perhaps: WITH defines the name somewhere in the statement
}

// functions are the table functions that a statement may call. All others read files or settings, or run text as SQL.
var functions = []string{"generate_series", "json_each", "json_tree", "range", "unnest"}

// tables finds the tables that a parsed statement names. tree is what json_serialize_sql says of it, which takes SELECT alone.
func (s *statement) tables(tree []byte) ([]tableRef, error) {
	var parsed struct {
		Error      bool   `json:"error"`
		Type       string `json:"error_type"`
		Message    string `json:"error_message"`
		Position   string `json:"position"`
		Statements []any  `json:"statements"`
	}
	d := json.NewDecoder(bytes.NewReader(tree))
	d.UseNumber()
	if err := d.Decode(&parsed); err != nil {
		return nil, fmt.Errorf("read the parsed statement: %w", err)
	}
	switch {
	case parsed.Error && parsed.Type == "not implemented":
		return nil, s.at(0, "only SELECT is possible here: the lake is read, never changed")
	case parsed.Error:
		return nil, s.at(offset(json.Number(parsed.Position)), parsed.Message)
	case len(parsed.Statements) == 0:
		return nil, s.at(-1, "there is no statement")
	case len(parsed.Statements) > 1:
		return nil, s.at(-1, fmt.Sprintf("there are %d statements: ask one at a time", len(parsed.Statements)))
	}
	f := finder{}
	f.find(parsed.Statements[0])
	if f.refused != nil {
		return nil, s.at(f.refused.at, f.refused.name)
	}
	for i := range f.tables {
		t := &f.tables[i]
		t.defined = t.schema == "" && slices.ContainsFunc(f.defined, func(name string) bool { return strings.EqualFold(name, t.name) })
	}
	slices.SortStableFunc(f.tables, func(a, b tableRef) int { return cmp.Compare(a.at, b.at) })
	return f.tables, nil
}

// offset is a place in a statement as DuckDB says it; -1 when it is none.
func offset(n json.Number) int {
	at, err := n.Int64()
	if err != nil {
		return -1 // no number, or the greatest, which means none
	}
	return int(at)
}

// finder walks through a parsed statement.
type finder struct {
	tables  []tableRef
	defined []string
	refused *tableRef // name is why
}

func (f *finder) find(node any) {
	switch node := node.(type) {
	case []any:
		for _, n := range node {
			f.find(n)
		}
	case map[string]any:
		f.look(node)
		for _, n := range node {
			f.find(n)
		}
	}
}

func (f *finder) look(node map[string]any) {
	text := func(key string) string { s, _ := node[key].(string); return s }
	number, _ := node["query_location"].(json.Number)
	at := offset(number)
	switch text("type") {
	case "BASE_TABLE":
		schema := text("schema_name")
		if catalog := text("catalog_name"); catalog != "" {
			schema = catalog + "." + schema
		}
		f.tables = append(f.tables, tableRef{schema: schema, name: text("table_name"), at: at})
	case "TABLE_FUNCTION":
		call, _ := node["function"].(map[string]any)
		name, _ := call["function_name"].(string)
		if !slices.Contains(functions, strings.ToLower(name)) {
			f.refuse(at, fmt.Sprintf("%s cannot be called here: FROM takes tables of the lake and %s", name, strings.Join(functions, ", ")))
		}
	case "SHOW_REF":
		if node["query"] == nil {
			f.refuse(at, "SHOW and DESCRIBE need a table of the lake; 'millrace tables' lists them")
		}
	}
	if ctes, ok := node["cte_map"].(map[string]any); ok {
		entries, _ := ctes["map"].([]any)
		for _, e := range entries {
			entry, _ := e.(map[string]any)
			if name, ok := entry["key"].(string); ok {
				f.defined = append(f.defined, name)
			}
		}
	}
}

func (f *finder) refuse(at int, why string) {
	if f.refused == nil || at < f.refused.at {
		f.refused = &tableRef{name: why, at: at}
	}
}
