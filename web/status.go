package web

import (
	"encoding/json"
	"slices"
	"time"
)

// Status is what the pipeline looks like at one instant: what the overview draws and /api/v1/status answers.
//
// Counts are totals since the data directory was made. A nil pointer means unknown and is shown as "–", never as 0. Rates
// may be left nil: the server works them out from the totals of the last seconds.
type Status struct {
	Account   string    `json:"account,omitempty"` // that the values are of; empty: of all. What is counted for all together is unknown of one
	At        time.Time `json:"at"`                // when the values were read; set by the server when zero
	StartedAt time.Time `json:"started_at"`
	Version   string    `json:"version"`
	DataDir   string    `json:"data_dir"`

	CollectorURL string `json:"collector_url"` // where sensors post, for the first steps

	Collected Collected `json:"collected"`
	Lake      Lake      `json:"lake"`
	Jobs      []Job     `json:"jobs"`
	Tables    []Table   `json:"tables"`
	Ledger    Ledger    `json:"ledger"`

	// Problems are the parts that could not be read, one sentence each. Their values are nil.
	Problems []string `json:"problems,omitempty"`
}

// Collected is what the collector has durably appended to the log.
type Collected struct {
	Items     *int64   `json:"items"`
	PerSecond *float64 `json:"per_second"`
}

// Lake is what the raw lake shows to readers: committed rows only.
type Lake struct {
	Events   *int64 `json:"events"`
	Entities *int64 `json:"entities"`
	Rejects  *int64 `json:"rejects"`

	Forgotten int64 `json:"forgotten,omitempty"` // records that were there, of people who are forgotten

	Tables []LakeTable `json:"tables"` // of the raw lake; none when they could not be read
}

// LakeTable is what a table of the lake consists of, and the state of its maintenance.
type LakeTable struct {
	Name      string    `json:"name"`
	Files     int       `json:"files"` // of data
	Bytes     int64     `json:"bytes"`
	Snapshots int       `json:"snapshots"`          // that are kept for readers and for going back
	Compacted time.Time `json:"compacted,omitzero"` // when files were last joined
}

// Rows returns the sum of the three raw tables, nil when one of them is unknown.
func (l Lake) Rows() *int64 {
	if l.Events == nil || l.Entities == nil || l.Rejects == nil {
		return nil
	}
	return new(*l.Events + *l.Entities + *l.Rejects)
}

// Job is one running job.
type Job struct {
	Name          string   `json:"name"`                   // of the app: ingest-etl-edgenuity-lms-job
	UniqueID      string   `json:"unique_id"`              // <program>-<account>-<env>--<data version>
	DataVersion   string   `json:"data_version,omitempty"` // 20180827174235; empty for one that has none
	Serving       bool     `json:"serving,omitempty"`      // readers see its tables
	State         string   `json:"state"`                  // RUNNING, FAILED, …; a percentage may follow: SEEDING 62 %
	Error         string   `json:"error,omitempty"`
	Epoch         uint64   `json:"epoch"` // last committed
	Read          int64    `json:"read"`  // records read from the log
	ReadPerSecond *float64 `json:"read_per_second"`
	LagRecords    *int64   `json:"lag_records"` // in the log and not read yet
	LagSeconds    *float64 `json:"lag_seconds"` // age of the oldest of them
	OutboxBytes   int64    `json:"outbox_bytes"`
	Sinks         []Sink   `json:"sinks"`
}

// Sink is how far one sink of a job has published.
type Sink struct {
	Name          string   `json:"name"`          // elastic, iceberg
	BehindEpochs  uint64   `json:"behind_epochs"` // committed and not published
	BehindSeconds *float64 `json:"behind_seconds"`
}

// Table is one table of an app. The table of an app's dead letters has no waiting records and no dead letters of its own:
// both are nil, and it is left out of the sums.
type Table struct {
	Name        string    `json:"name"`
	Rows        *int64    `json:"rows"` // that readers of the index see
	PerSecond   *float64  `json:"per_second"`
	Waiting     *int64    `json:"waiting"` // records that wait for an entity
	DeadLetters *int64    `json:"dead_letters"`
	NewestEvent time.Time `json:"newest_event,omitzero"` // event time of the newest row
}

func (t Table) ofDeadLetters() bool { return t.Rows != nil && t.Waiting == nil && t.DeadLetters == nil }

// Ledger is the bookkeeping of the whole pipeline: equations that must hold when nothing is lost and nothing doubles.
type Ledger struct {
	At       time.Time // when it was computed; zero when it has not been yet
	Accounts []Account
}

// Account is one equation of the ledger: Total = the sum of Parts. What is still on its way is a part of its own.
type Account struct {
	Name  string   `json:"name"` // collector to lake
	Total Amount   `json:"total"`
	Parts []Amount `json:"parts"`

	// Uncertain: the difference is no larger than what moved while the terms were read one after the other, and may be nothing.
	Uncertain bool `json:"uncertain,omitempty"`
}

// Amount is one term of an Account.
type Amount struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
}

// Difference returns Total less the sum of Parts: positive when records are missing, negative when some are double.
func (a Account) Difference() int64 {
	d := a.Total.Count
	for _, p := range a.Parts {
		d -= p.Count
	}
	return d
}

// Off reports whether records are missing or double for certain.
func (a Account) Off() bool { return a.Difference() != 0 && !a.Uncertain }

// Known reports whether the ledger has been computed.
func (l Ledger) Known() bool { return !l.At.IsZero() && len(l.Accounts) > 0 }

// Off reports whether an account is off.
func (l Ledger) Off() bool { return slices.ContainsFunc(l.Accounts, Account.Off) }

// Balanced reports whether the ledger is known and every account adds up. A ledger may be neither balanced nor off: records move, and a
// later reading will tell.
func (l Ledger) Balanced() bool {
	for _, a := range l.Accounts {
		if a.Difference() != 0 {
			return false
		}
	}
	return l.Known()
}

type ledgerJSON struct {
	At       time.Time `json:"at,omitzero"`
	Balanced *bool     `json:"balanced"` // null while unknown or uncertain
	Accounts []Account `json:"accounts"`
}

// MarshalJSON adds "balanced", which is null while the ledger is unknown or uncertain.
func (l Ledger) MarshalJSON() ([]byte, error) {
	out := ledgerJSON{At: l.At, Accounts: l.Accounts}
	if l.Known() && (l.Off() || l.Balanced()) {
		out.Balanced = new(l.Balanced())
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote; "balanced" is computed again, not believed.
func (l *Ledger) UnmarshalJSON(b []byte) error {
	var in ledgerJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	*l = Ledger{At: in.At, Accounts: in.Accounts}
	return nil
}

// DeadLetter is one record that made no row, and why.
type DeadLetter struct {
	At      time.Time // when it was given up
	App     string
	Stage   string   // stage, table or sink that gave it up
	Record  string   // <kind> <id> <topic>/<partition>/<offset>
	Reasons []string // every one, a sentence each
}
