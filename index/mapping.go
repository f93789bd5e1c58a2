package index

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Column types of a mapping, as declared. Each is kept in one SQL type: see storage.
const (
	typeKeyword = "keyword"
	typeLong    = "long"
	typeDouble  = "double"
	typeBoolean = "boolean"
	typeDate    = "date"
	typeBinary  = "binary" // in _source only: no column, no queries
)

// storage is the SQL type of a declared field type; "" for types that are not kept in columns.
func storage(typ string) string {
	switch typ {
	case typeKeyword:
		return "VARCHAR"
	case typeLong, "integer", "short", "byte":
		return "BIGINT"
	case typeDouble, "float", "half_float":
		return "DOUBLE"
	case typeBoolean:
		return "BOOLEAN"
	case typeDate:
		return "BIGINT" // milliseconds since 1970, UTC: integers compare much faster than timestamps
	}
	return ""
}

// field is one mapped leaf.
type field struct {
	Path        string `json:"path"` // dotted
	Type        string `json:"type"`
	Column      int    `json:"column"` // its column is f<Column>
	Multi       bool   `json:"multi,omitempty"`
	Format      string `json:"format,omitempty"` // of a date
	IgnoreAbove int    `json:"ignore_above,omitempty"`
}

func (f *field) column() string { return fmt.Sprintf("f%d", f.Column) }

// sqlType is the type of the field's column.
func (f *field) sqlType() string {
	if f.Multi {
		return storage(f.Type) + "[]"
	}
	return storage(f.Type)
}

// object is a mapped object: a prefix of paths with its own say about new fields.
type object struct {
	Dynamic  string `json:"dynamic,omitempty"` // "true", "false", "strict"; empty: as the parent
	Disabled bool   `json:"disabled,omitempty"`
}

// mapping is what an index knows about its documents. It is not changed once it is in a catalog.
type mapping struct {
	Fields  map[string]*field `json:"fields"`  // by path
	Objects map[string]object `json:"objects"` // by path; "" is the document
	Columns int               `json:"columns"` // given out so far; never reused
	Meta    json.RawMessage   `json:"meta,omitempty"`
}

// maxFields is Elasticsearch's index.mapping.total_fields.limit.
const maxFields = 1000

func newMapping() *mapping {
	return &mapping{Fields: map[string]*field{}, Objects: map[string]object{"": {}}}
}

func (m *mapping) clone() *mapping {
	c := &mapping{Fields: make(map[string]*field, len(m.Fields)), Objects: maps.Clone(m.Objects), Columns: m.Columns, Meta: m.Meta}
	for path, f := range m.Fields {
		copied := *f
		c.Fields[path] = &copied
	}
	return c
}

// sorted returns the fields in order of their paths.
func (m *mapping) sorted() []*field {
	paths := slices.Sorted(maps.Keys(m.Fields))
	out := make([]*field, len(paths))
	for i, p := range paths {
		out[i] = m.Fields[p]
	}
	return out
}

// under returns the fields below an object's path.
func (m *mapping) under(path string) []*field {
	var out []*field
	for _, f := range m.sorted() {
		if strings.HasPrefix(f.Path, path+".") {
			out = append(out, f)
		}
	}
	return out
}

// dynamic says what happens to an unmapped field right below the object path.
func (m *mapping) dynamic(path string) string {
	for {
		if o, ok := m.Objects[path]; ok && o.Dynamic != "" {
			return o.Dynamic
		}
		if path == "" {
			return "true"
		}
		path = parent(path)
	}
}

func parent(path string) string {
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		return path[:i]
	}
	return ""
}

func mappingError(format string, args ...any) *Error {
	return refuse(400, "mapper_parsing_exception", format, args...)
}

// merge adds the mapping that a client sent: fields and objects may be new or the same as before, never different.
func (m *mapping) merge(body *value) error {
	if body.kind != kindObject {
		return mappingError("Expected map for the mapping but got a %s", body.kind)
	}
	for _, mem := range body.obj {
		if mem.key == "_meta" {
			m.Meta = json.RawMessage(slices.Clone(mem.val.raw))
		}
	}
	if err := m.mergeObject("", body); err != nil {
		return err
	}
	if len(m.Fields) > maxFields {
		return illegal("Limit of total fields [%d] has been exceeded", maxFields)
	}
	return nil
}

func (m *mapping) mergeObject(path string, body *value) error {
	name := path
	if name == "" {
		name = "_doc"
	}
	o := m.Objects[path]
	for _, mem := range body.obj {
		v := mem.val
		switch mem.key {
		case "dynamic":
			switch d := v.text(); d {
			case "true", "false", "strict":
				o.Dynamic = d
			default:
				return mappingError("dynamic value [%s] of [%s] is not true, false or strict", d, name)
			}
		case "enabled":
			if v.kind != kindBool {
				return mappingError("enabled of [%s] must be a boolean", name)
			}
			o.Disabled = !v.isTrue()
		case "type":
			if v.text() != "object" {
				return mappingError("No handler for type [%s] declared on field [%s]", v.text(), name)
			}
		case "properties":
			if v.kind != kindObject {
				return mappingError("Expected map for property [properties] on field [%s] but got a %s", name, v.kind)
			}
		case "_meta":
			if path != "" {
				return mappingError("unknown parameter [_meta] on mapper [%s] of type [object]", name)
			}
		default:
			if path == "" {
				return mappingError("Root mapping definition has unsupported parameters:  [%s : %s]", mem.key, v.raw)
			}
			return mappingError("unknown parameter [%s] on mapper [%s] of type [object]", mem.key, name)
		}
	}
	m.Objects[path] = o
	properties, ok := body.get("properties")
	if !ok {
		return nil
	}
	for i := range properties.obj {
		if err := m.mergeProperty(path, properties.obj[i].key, &properties.obj[i].val); err != nil {
			return err
		}
	}
	return nil
}

func (m *mapping) mergeProperty(path, name string, body *value) error {
	if body.kind != kindObject {
		return mappingError("Expected map for property [fields] on field [%s] but got a %s", name, body.kind)
	}
	full := name
	if path != "" {
		full = path + "." + name
	}
	if err := checkPath(full); err != nil {
		return err
	}
	if path == "" && isMetadata(name) {
		return mappingError("Field [%s] is defined more than once: it is a metadata field", name)
	}
	typ, typed := body.get("type")
	if !typed || typ.text() == "object" {
		if _, isField := m.Fields[full]; isField {
			return illegal("can't merge a non object mapping [%s] with an object mapping", full)
		}
		if err := m.objectsAbove(full); err != nil {
			return err
		}
		return m.mergeObject(full, body)
	}
	f := &field{Path: full, Type: typ.text(), Column: -1}
	if storage(f.Type) == "" && f.Type != typeBinary {
		return mappingError("No handler for type [%s] declared on field [%s]", f.Type, name)
	}
	if err := f.parameters(body); err != nil {
		return err
	}
	return m.add(f)
}

// parameters reads the mapping parameters of a leaf. Those that only tune Elasticsearch's own storage have no effect here.
func (f *field) parameters(body *value) error {
	for _, mem := range body.obj {
		v := mem.val
		ok := true
		switch mem.key {
		case "type":
		case "index", "doc_values", "store", "norms", "eager_global_ordinals":
			ok = v.kind == kindBool
		case "ignore_above":
			n, isInt := v.integer()
			ok = f.Type == typeKeyword && isInt && n > 0
			f.IgnoreAbove = int(n)
		case "format":
			if ok = f.Type == typeDate && v.kind == kindString; ok {
				f.Format = v.str
				if _, err := parseFormats(v.str); err != nil {
					return mappingError("Failed to parse mapping: Invalid format: [%s]: %s", v.str, err)
				}
			}
		default:
			return mappingError("unknown parameter [%s] on mapper [%s] of type [%s]", mem.key, f.Path, f.Type)
		}
		if !ok {
			return mappingError("parameter [%s] on mapper [%s] of type [%s] has the unsupported value [%s]", mem.key, f.Path, f.Type, v.raw)
		}
	}
	return nil
}

// add maps a new field, or checks that the one there is the same.
func (m *mapping) add(f *field) error {
	if old, ok := m.Fields[f.Path]; ok {
		if old.Type != f.Type {
			return illegal("mapper [%s] cannot be changed from type [%s] to [%s]", f.Path, old.Type, f.Type)
		}
		if old.Format != f.Format {
			return illegal("Mapper for [%s] conflicts with existing mapper: Cannot update parameter [format] from [%s] to [%s]", f.Path, old.Format, f.Format)
		}
		old.IgnoreAbove = f.IgnoreAbove
		return nil
	}
	if _, ok := m.Objects[f.Path]; ok {
		return illegal("can't merge a non object mapping [%s] with an object mapping", f.Path)
	}
	if err := m.objectsAbove(f.Path); err != nil {
		return err
	}
	if storage(f.Type) != "" {
		f.Column = m.Columns
		m.Columns++
	}
	m.Fields[f.Path] = f
	return nil
}

// objectsAbove maps the objects that a path passes through.
func (m *mapping) objectsAbove(path string) error {
	for p := parent(path); p != ""; p = parent(p) {
		if _, ok := m.Fields[p]; ok {
			return mappingError("Could not dynamically add mapping for field [%s]. Existing mapping for [%s] must be of type object but found [%s].", path, p, m.Fields[p].Type)
		}
		if _, ok := m.Objects[p]; !ok {
			m.Objects[p] = object{}
		}
	}
	return nil
}

func checkPath(path string) error {
	for part := range strings.SplitSeq(path, ".") {
		if strings.TrimSpace(part) == "" {
			return illegal("field name [%s] cannot contain an empty part or only whitespace", path)
		}
	}
	if len(path) > 1024 {
		return illegal("field name [%.40s…] is longer than 1024 bytes", path)
	}
	return nil
}

// isMetadata reports whether a top-level name is one of Elasticsearch's own fields, which documents may not have.
func isMetadata(name string) bool {
	switch name {
	case "_id", "_index", "_source", "_type", "_routing", "_version", "_seq_no", "_primary_term", "_field_names",
		"_ignored", "_doc_count", "_size", "_tier", "_nested_path", "_data_stream_timestamp", "_tsid":
		return true
	}
	return false
}

// properties is the mapping as clients are shown it.
func (m *mapping) properties() map[string]any {
	root := map[string]any{}
	at := func(path string) map[string]any {
		node := root
		if path == "" {
			return node
		}
		for part := range strings.SplitSeq(path, ".") {
			props, ok := node["properties"].(map[string]any)
			if !ok {
				props = map[string]any{}
				node["properties"] = props
			}
			child, ok := props[part].(map[string]any)
			if !ok {
				child = map[string]any{}
				props[part] = child
			}
			node = child
		}
		return node
	}
	for path, o := range m.Objects {
		node := at(path)
		if o.Dynamic != "" {
			node["dynamic"] = o.Dynamic
		}
		if o.Disabled {
			node["enabled"] = false
		}
	}
	for path, f := range m.Fields {
		node := at(path)
		node["type"] = f.Type
		if f.Format != "" {
			node["format"] = f.Format
		}
		if f.IgnoreAbove > 0 {
			node["ignore_above"] = f.IgnoreAbove
		}
	}
	for path := range m.Objects {
		if node := at(path); path != "" && node["properties"] == nil {
			node["type"] = "object"
		}
	}
	if m.Meta != nil {
		root["_meta"] = m.Meta
	}
	return root
}
