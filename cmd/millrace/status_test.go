package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/web"
)

// A record that is missing is on its way only if a sink has yet to publish it.
func TestLiveLedger(t *testing.T) {
	t.Parallel()
	progress := func(read, pending int64) engine.Progress {
		return engine.Progress{
			Read: read, Rows: read, Counters: map[string]int64{"read": read, "filtered": read, "table.quiz.in": read},
			Sinks: []engine.SinkProgress{{Name: "iceberg", PendingRows: pending, Begun: true}, {Name: "elastic", PendingRows: pending, Begun: true}},
		}
	}
	for _, c := range []struct {
		name             string
		before, after    engine.Progress
		rows             int64 // in lake and table
		onTheirWay       int64
		difference       int64
		uncertain, taken bool // of the table; whether a lineage is yet to be begun
	}{
		{"at rest", progress(10, 0), progress(10, 0), 10, 0, 0, false, false},
		{"gathering", progress(10, 4), progress(10, 4), 6, 4, 0, false, false},
		{"published meanwhile", progress(10, 4), progress(10, 0), 8, 2, 0, false, false},
		{"read meanwhile", progress(10, 0), progress(15, 5), 10, 5, 0, false, false},
		{"lost at rest", progress(10, 0), progress(10, 0), 9, 0, 1, false, false},
		{"lost beyond what moves", progress(10, 4), progress(12, 6), 5, 6, 1, false, false},
		{"double at rest", progress(10, 0), progress(10, 0), 11, 0, -1, false, false},
		{"over, and rows of the table may go", progress(10, 2), progress(10, 2), 11, 0, -1, true, false},
		{"to be taken back", progress(10, 0), progress(10, 0), 15, 0, -5, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for i := range c.before.Sinks {
				c.before.Sinks[i].Begun = !c.taken
			}
			st := web.Status{
				Lake:   web.Lake{Events: new(c.rows), Entities: new(int64(0)), Rejects: new(int64(0))},
				Tables: []web.Table{{Name: "quiz", Rows: new(c.rows), Waiting: new(int64(0)), DeadLetters: new(int64(0))}},
			}
			m := meanwhile{c.before, c.after}
			inLake, known := lakeAccount(st.Lake, m)
			require.True(t, known)
			ofTables := tableAccounts(st.Tables, m)
			require.Len(t, ofTables, 1)
			for a, uncertain := range map[*web.Account]bool{&inLake: c.taken, &ofTables[0]: c.uncertain} {
				require.Equal(t, web.Amount{Name: "on their way", Count: c.onTheirWay}, a.Parts[len(a.Parts)-1], a.Name)
				require.Equal(t, c.difference, a.Difference(), a.Name)
				require.Equal(t, uncertain, a.Uncertain, a.Name)
			}
		})
	}
}
