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
)

// More timers than an epoch fires are due at one instant: the rest fires in the next epochs, each once.
func TestMoreTimersThanAnEpochFires(t *testing.T) {
	t.Parallel()
	m := &memory{name: "index"}
	clock := plantest.NewClock()
	c := config(t, newLog(), m)
	c.Now = clock.Now
	j := start(t, c)
	items := make([]record.Item, 20_500)
	for i := range items {
		items[i] = plantest.Event(fmt.Sprintf("a%d", i), fmt.Sprintf("e%d", i))
	}
	j.log.append(0, items...)
	j.settle()
	epoch := j.e.Progress().Epoch
	clock.Move(2 * plantest.Wait)
	j.wait("all timers", func(p engine.Progress) bool { return p.Fired == int64(len(items)) })
	j.settle()
	require.GreaterOrEqual(t, j.e.Progress().Epoch, epoch+2)
	requireTables(t, items, m)
}

// Rows that a sink does not take go to a second segment when the first is full, and the first is removed once it is published.
func TestOutboxSegments(t *testing.T) {
	t.Parallel()
	const rows, size = 36, 2 << 20
	table := plan.Table{Name: "big", Schema: plan.Schema{Name: "Big", Columns: []plan.Column{{Name: "text", Type: plan.String}}}}
	m := &memory{name: "slow", block: make(chan struct{})}
	c := config(t, newLog(), m)
	c.Plan = &plan.Plan{
		App: "big", Version: "1", Tables: []plan.Table{table},
		Read: func(items []record.Item, out *plan.Output) {
			for _, it := range items {
				value, err := table.Schema.Append(nil, []plan.Cell{{Bytes: bytes.Repeat(it.Bytes, size)}})
				if err != nil {
					panic(err)
				}
				out.Row(plan.Row{ID: it.ID, Rev: 1, First: true, Value: value})
			}
		},
	}
	segments := func() (n int) {
		names, err := c.FS.List("job/outbox")
		require.NoError(t, err)
		for _, name := range names {
			if strings.HasSuffix(name, ".rows") {
				n++
			}
		}
		return n
	}
	j := start(t, c)
	for i := range rows {
		j.log.append(0, record.Item{ID: fmt.Sprint(i), Bytes: []byte{byte('a' + i%26)}})
		j.wait("an epoch", func(p engine.Progress) bool { return p.Read == int64(i+1) })
	}
	require.Equal(t, 2, segments())
	close(m.block)
	j.settle()
	require.Equal(t, 1, segments())
	published := m.published()
	require.Len(t, published, rows)
	cells := make([]plan.Cell, 1)
	for i, r := range published {
		require.NoError(t, table.Schema.Decode(r.Value, cells))
		require.Equal(t, strings.Repeat(string(rune('a'+i%26)), 8), string(cells[0].Bytes[size-8:]), "row %s", r.ID)
		require.Len(t, cells[0].Bytes, size)
	}
}
