package engine_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan"
	"millrace/plan/plantest"
	"millrace/record"
	"millrace/sink"
)

// bulkyPlan keeps 32 kB a record in the list of its key, and makes a row of the length of the list when a record says "tell".
func bulkyPlan() *plan.Plan {
	const tagKeep, tagTell = 1, 2
	table := plan.Table{Name: "kept", AppendOnly: true, Schema: plan.Schema{Name: "Kept", Columns: []plan.Column{{Name: "bytes", Type: plan.Long}}}}
	return &plan.Plan{
		App: "bulky", Version: "1", Tables: []plan.Table{table}, ReadTo: []int{0},
		Read: func(items []record.Item, out *plan.Output) {
			for _, it := range items {
				e := plan.Element{Key: []byte(it.ID), Tag: tagKeep}
				if string(it.Bytes) == `"tell"` {
					e.Tag = tagTell
				}
				out.Send(0, e)
			}
		},
		Stages: []plan.Stage{{Name: "keep", ListTags: []uint8{tagTell}, Keyed: func(_ plan.Clock, keys []*plan.Key, out *plan.Output) {
			for _, k := range keys {
				for _, in := range k.Inputs {
					if in.Tag == tagKeep {
						k.Append = append(k.Append, bytes.Repeat(k.Key, 32<<10/len(k.Key)))
						continue
					}
					n := 0
					for _, it := range k.List {
						n += len(it) * bytes.Count(it, k.Key) / (32 << 10 / len(k.Key))
					}
					value, err := table.Schema.Append(nil, []plan.Cell{{Int: int64(n)}})
					if err != nil {
						panic(err)
					}
					out.Row(plan.Row{ID: string(k.Key), Value: value})
				}
			}
		}}},
	}
}

// What Pebble keeps beside its tables is part of a savepoint, and is there after it is restored.
func TestSavepointHasBlobs(t *testing.T) {
	t.Parallel()
	item := func(i int, body string) record.Item {
		return record.Item{ID: fmt.Sprintf("key-%04d", i), Bytes: []byte(body)}
	}
	c := config(t, newLog(), &memory{name: "index"})
	c.Plan = bulkyPlan()
	j := start(t, c)
	for i := range 100 { // 3 MB
		j.log.append(0, item(i, `"keep"`))
	}
	j.settle()
	j.stop()
	j = start(t, c) // opening flushes what the log holds
	require.NoError(t, j.e.Savepoint(t.Context(), "saved"))
	j.stop()

	manifest, err := engine.ReadManifest(c.FS, "saved")
	require.NoError(t, err)
	blobs := 0
	for _, f := range manifest.Files {
		if strings.HasSuffix(f.Name, ".blob") {
			blobs++
		}
	}
	require.Positive(t, blobs, "%v", manifest.Files)

	require.NoError(t, engine.Restore(c.FS, "saved", "again", plantest.NewClock().Now()))
	again := &memory{name: "index"}
	c.Dir, c.Sinks = "again", []sink.Sink{again}
	j = start(t, c)
	for i := range 100 {
		j.log.append(0, item(i, `"tell"`))
	}
	j.settle()
	j.stop()
	rows := again.published()
	require.Len(t, rows, 100)
	for _, r := range rows {
		var cells [1]plan.Cell
		require.NoError(t, c.Plan.Tables[0].Schema.Decode(r.Value, cells[:]))
		require.EqualValues(t, 32<<10, cells[0].Int, r.ID)
	}
}
