package plan

import "encoding/json"

// Description is a plan without its functions: what describe prints, a console draws and an upgrade compares.
type Description struct {
	App         string             `json:"app"`
	Version     string             `json:"version"`
	Description string             `json:"description"`
	SourceTypes []string           `json:"sourceTypes"`
	ReadTo      []string           `json:"readTo"`
	Stages      []StageDescription `json:"stages"`
	Tables      []TableDescription `json:"tables"`
}

// StageDescription is one stage of a Description.
type StageDescription struct {
	Name  string   `json:"name"`
	Doc   string   `json:"doc"`
	Keyed bool     `json:"keyed"`
	To    []string `json:"to"`
}

// TableDescription is one table of a Description.
type TableDescription struct {
	Name      string          `json:"name"`
	Doc       string          `json:"doc"`
	Partition []string        `json:"partition"`
	Schema    json.RawMessage `json:"schema"` // Avro
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
	}
	for _, s := range p.Stages {
		d.Stages = append(d.Stages, StageDescription{s.Name, s.Doc, s.Keyed != nil, names(s.To)})
	}
	for _, t := range p.Tables {
		td := TableDescription{Name: t.Name, Doc: t.Doc, Schema: json.RawMessage(t.Schema.Avro())}
		for _, f := range t.PartitionSpec() {
			td.Partition = append(td.Partition, string(f.Transform)+"("+f.Column+")")
		}
		d.Tables = append(d.Tables, td)
	}
	return d
}

// PartitionSpec returns the table's partition fields, or the default: the day of the event time.
func (t Table) PartitionSpec() []PartitionField {
	if len(t.Partition) > 0 || t.AppendOnly {
		return t.Partition
	}
	return []PartitionField{{Column: "_event_time", Transform: Day}}
}
