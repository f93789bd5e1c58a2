package plan

import (
	"maps"
	"slices"
	"time"
)

// Seeding is how far a job is that reads records from the lake before it follows the log. It is committed with the epochs, so the records
// before it are exactly those that the state has taken in.
//
//	lake   ├───── tables of pinned snapshots, by file ─────┤
//	log                         ├──── expired ────┤        ├──── from Handoff on
//	offset                                        Since    Handoff
//
// Handoff is the offset after the last one that the pinned snapshots hold, for each partition of the log. Rows of the lake from there on,
// which a table may hold already, are left to the log, so no record comes twice and none is left out.
type Seeding struct {
	Of SeedRange `json:"of"`

	Snapshots map[string]int64 `json:"snapshots"`       // pinned, by table of the raw lake
	Since     Offsets          `json:"since,omitempty"` // rows before are left out too: of a log that has lost records
	Handoff   Offsets          `json:"handoff"`

	// Tasks are files of the snapshots, in an order that they determine. Those below Begun have begun, and of these the ones in Doing, with
	// the number of rows that have been read, have not ended.
	Tasks int           `json:"tasks"`
	Begun int           `json:"begun"`
	Doing map[int]int64 `json:"doing,omitempty"`

	Rows int64 `json:"rows"` // in the files of all tasks: what there is to read
	Read int64 `json:"read"` // of them, read
	Kept int64 `json:"kept"` // of them, given to the plan

	Done bool `json:"done,omitempty"` // the log is read
}

// SeedRange says which records of the lake a job is seeded with. The zero value is all.
type SeedRange struct {
	SourceTypes []string `json:"source_types,omitempty"` // empty: all
	Envs        []Env    `json:"envs,omitempty"`         // empty: all

	// Events with From <= event time < To. Zero bounds are none. Entities are read whenever they were sent: an event may need one that was
	// described before the range, or after it.
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`

	EntitiesFirst bool `json:"entities_first,omitempty"` // read all entities before the first event
}

// Env is one environment of a tenant.
type Env struct {
	Account string `json:"account"`
	Name    string `json:"env"`
}

// String returns account:env.
func (e Env) String() string { return e.Account + ":" + e.Name }

// Clone copies s, so that the copy can be changed.
func (s *Seeding) Clone() *Seeding {
	c := *s
	c.Doing = maps.Clone(s.Doing)
	return &c
}

// Keeps reports whether events of that tenant are in the range.
func (r SeedRange) Keeps(account, env string) bool {
	return len(r.Envs) == 0 || slices.Contains(r.Envs, Env{account, env})
}

// KeepsSource reports whether records of that source type are in the range.
func (r SeedRange) KeepsSource(sourceType string) bool {
	return len(r.SourceTypes) == 0 || slices.Contains(r.SourceTypes, sourceType)
}
