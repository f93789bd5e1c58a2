package engine_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan/plantest"
	"millrace/record"
)

// What was stored before a stage had a dictionary, what was stored with it, and what is too short for it is read alike, by the process
// that made the dictionary and by the next.
func TestStateIsPacked(t *testing.T) {
	t.Parallel()
	m := &memory{name: "index"}
	c := config(t, newLog(), m)
	j := start(t, c)
	var items []record.Item
	wave := func(id string) {
		var batch []record.Item
		for i := range 10 {
			batch = append(batch, plantest.Event(fmt.Sprintf("key %d", i), fmt.Sprintf(id, i)))
		}
		items = append(items, batch...)
		read := j.e.Progress().Read + int64(len(batch))
		j.log.append(0, batch...)
		j.wait("the wave", func(p engine.Progress) bool { return p.Read == read })
	}
	wave("an event that comes before its entity does, number %d")
	require.Equal(t, 1, j.e.Packed(), "of the lists")
	wave("another event that comes before its entity does, number %d")
	wave("%d")
	j.stop()

	j = start(t, c)
	require.Equal(t, 1, j.e.Packed())
	wave("a third event that comes before its entity does, number %d")
	for i := range 10 {
		e := plantest.Entity(fmt.Sprintf("key %d", i))
		items = append(items, e)
		j.log.append(0, e)
	}
	j.settle()
	requireTables(t, items, m)
	j.stop()
}
