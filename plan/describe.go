package plan

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Description is a plan without its functions: what describe prints, a console draws and an upgrade compares.
type Description struct {
	App         string             `json:"app"`
	Version     string             `json:"version"`
	Description string             `json:"description"`
	SourceTypes []string           `json:"sourceTypes"` // empty: all
	ReadTo      []string           `json:"readTo"`
	Stages      []StageDescription `json:"stages"`
	Tables      []TableDescription `json:"tables"`
	Counters    []string           `json:"counters"`
	Renamed     map[string]string  `json:"renamed,omitempty"`
	Removed     []string           `json:"removed,omitempty"`
}

// StageDescription is one stage of a Description.
type StageDescription struct {
	Name   string   `json:"name"`
	Doc    string   `json:"doc"`
	Keyed  bool     `json:"keyed"`
	Key    string   `json:"key,omitempty"`
	Format string   `json:"format,omitempty"`
	To     []string `json:"to"`
}

// TableDescription is one table of a Description.
type TableDescription struct {
	Name       string            `json:"name"`
	Doc        string            `json:"doc"`
	Reads      string            `json:"reads,omitempty"`
	Joins      []JoinDescription `json:"joins,omitempty"`
	Partition  []string          `json:"partition"`
	AppendOnly bool              `json:"appendOnly,omitempty"`
	Schema     json.RawMessage   `json:"schema"` // Avro
}

// JoinDescription is one join of a TableDescription.
type JoinDescription struct {
	Field      string   `json:"field"`
	Stage      string   `json:"stage"`
	Record     []string `json:"record"`
	WaitFor    string   `json:"waitFor"`
	CorrectFor string   `json:"correctFor"`
	Else       string   `json:"else"`
}

// Describe returns p as plain values.
func (p *Plan) Describe() Description {
	names := func(to []int) []string {
		out := make([]string, len(to))
		for i, s := range to {
			out[i] = p.Stages[s].Name
		}
		return out
	}
	d := Description{
		App: p.App, Version: p.Version, Description: p.Doc,
		SourceTypes: append([]string{}, p.SourceTypes...), ReadTo: names(p.ReadTo),
		Stages: []StageDescription{}, Tables: []TableDescription{},
		Counters: append([]string{}, p.Counters...), Renamed: p.Renamed, Removed: p.Removed,
	}
	for _, s := range p.Stages {
		d.Stages = append(d.Stages, StageDescription{s.Name, s.Doc, s.Keyed != nil, s.Key, s.Format, names(s.To)})
	}
	for _, t := range p.Tables {
		td := TableDescription{Name: t.Name, Doc: t.Doc, Reads: t.Reads, AppendOnly: t.AppendOnly, Schema: json.RawMessage(t.Schema.Avro())}
		for _, f := range t.PartitionSpec() {
			td.Partition = append(td.Partition, string(f.Transform)+"("+f.Column+")")
		}
		for _, j := range t.Joins {
			td.Joins = append(td.Joins, JoinDescription{
				Field: j.Field, Stage: p.Stages[j.Stage].Name, Record: j.Record,
				WaitFor: j.WaitFor.String(), CorrectFor: j.CorrectFor.String(), Else: j.Else,
			})
		}
		d.Tables = append(d.Tables, td)
	}
	return d
}

// Sketch returns a plan that is described as d, for those who compare plans and read what their jobs wrote. It cannot be run.
func (d Description) Sketch() (*Plan, error) {
	p := &Plan{App: d.App, Version: d.Version, Doc: d.Description, SourceTypes: d.SourceTypes, Counters: d.Counters, Renamed: d.Renamed, Removed: d.Removed}
	stages := map[string]int{}
	for i, s := range d.Stages {
		stages[s.Name] = i
	}
	indices := func(names []string) (to []int, err error) {
		for _, name := range names {
			i, ok := stages[name]
			if !ok {
				return nil, fmt.Errorf("plan of %s %s: there is no stage %q", d.App, d.Version, name)
			}
			to = append(to, i)
		}
		return to, nil
	}
	var err error
	if p.ReadTo, err = indices(d.ReadTo); err != nil {
		return nil, err
	}
	for _, s := range d.Stages {
		stage := Stage{Name: s.Name, Doc: s.Doc, Key: s.Key, Format: s.Format}
		if stage.To, err = indices(s.To); err != nil {
			return nil, err
		}
		if s.Keyed {
			stage.Keyed = func(Clock, []*Key, *Output) { panic("a sketch of a plan is run") }
		} else {
			stage.Stateless = func([]Element, *Output) { panic("a sketch of a plan is run") }
		}
		p.Stages = append(p.Stages, stage)
	}
	for _, t := range d.Tables {
		table, err := t.sketch(stages)
		if err != nil {
			return nil, fmt.Errorf("plan of %s %s: table %s: %w", d.App, d.Version, t.Name, err)
		}
		p.Tables = append(p.Tables, table)
	}
	return p, nil
}

func (t TableDescription) sketch(stages map[string]int) (table Table, err error) {
	table = Table{Name: t.Name, Doc: t.Doc, Reads: t.Reads, AppendOnly: t.AppendOnly}
	if table.Schema, err = ParseAvro(t.Schema); err != nil {
		return table, err
	}
	for _, text := range t.Partition {
		transform, column, ok := strings.Cut(strings.TrimSuffix(text, ")"), "(")
		if !ok || Transform(transform) != Identity && Transform(transform) != Day {
			return table, fmt.Errorf("there is no partitioning %q", text)
		}
		table.Partition = append(table.Partition, PartitionField{Column: column, Transform: Transform(transform)})
	}
	for _, j := range t.Joins {
		stage, ok := stages[j.Stage]
		if !ok {
			return table, fmt.Errorf("there is no stage %q", j.Stage)
		}
		join := Join{Field: j.Field, Stage: stage, Record: j.Record, Else: j.Else}
		if join.WaitFor, err = time.ParseDuration(j.WaitFor); err != nil {
			return table, err
		}
		if join.CorrectFor, err = time.ParseDuration(j.CorrectFor); err != nil {
			return table, err
		}
		table.Joins = append(table.Joins, join)
	}
	return table, nil
}

// Table returns the table of that name, and whether there is one.
func (d Description) Table(name string) (TableDescription, bool) {
	i := slices.IndexFunc(d.Tables, func(t TableDescription) bool { return t.Name == name })
	if i < 0 {
		return TableDescription{}, false
	}
	return d.Tables[i], true
}

// PartitionSpec returns the table's partition fields, or the default: the day of the event time.
func (t Table) PartitionSpec() []PartitionField {
	if len(t.Partition) > 0 || t.AppendOnly {
		return t.Partition
	}
	return []PartitionField{{Column: "_event_time", Transform: Day}}
}

// ParseAvro reads a schema that Schema.Avro wrote.
func ParseAvro(text []byte) (Schema, error) {
	var rec struct {
		Name   string `json:"name"`
		Fields []struct {
			Name string          `json:"name"`
			Doc  string          `json:"doc"`
			Type json.RawMessage `json:"type"`
		} `json:"fields"`
	}
	if err := json.Unmarshal(text, &rec); err != nil {
		return Schema{}, fmt.Errorf("read Avro schema: %w", err)
	}
	s := Schema{Name: rec.Name}
	for _, f := range rec.Fields {
		c := Column{Name: f.Name, Doc: f.Doc}
		typ := f.Type
		var union []json.RawMessage
		if json.Unmarshal(typ, &union) == nil && len(union) == 2 {
			c.Nullable, typ = true, union[1]
		}
		if c.Type = avroType(typ); c.Type == 0 {
			return Schema{}, fmt.Errorf("read Avro schema of %s: column %s has the unknown type %s", s.Name, f.Name, f.Type)
		}
		s.Columns = append(s.Columns, c)
	}
	return s, nil
}

func avroType(text json.RawMessage) Type {
	var name string
	if json.Unmarshal(text, &name) == nil {
		return map[string]Type{"string": String, "boolean": Bool, "long": Long, "double": Double, "bytes": Bytes}[name]
	}
	var t struct{ Type, LogicalType, Items string }
	switch err := json.Unmarshal(text, &t); {
	case err != nil:
	case t.Type == "long" && t.LogicalType == "timestamp-micros":
		return Timestamp
	case t.Type == "array" && t.Items == "string":
		return Strings
	}
	return 0
}

// String returns the type's name as messages have it.
func (t Type) String() string {
	switch t {
	case String:
		return "string"
	case Bool:
		return "bool"
	case Long:
		return "long"
	case Double:
		return "double"
	case Timestamp:
		return "timestamp"
	case Bytes:
		return "bytes"
	case Strings:
		return "list of strings"
	}
	return fmt.Sprintf("type %d", t)
}
