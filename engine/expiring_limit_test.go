package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan/plantest"
	"millrace/record"
)

// Records that may be corrected take no more than the limit, however many come; the newest of them still are, and so are those that
// wait. What a crash loses is done again alike.
func TestExpiringLimit(t *testing.T) {
	t.Parallel()
	const limit = 600 << 10
	clock, m := plantest.NewClock(), &memory{name: "index"}
	c := config(t, newLog(), m)
	c.Now, c.ExpiringLimit = clock.Now, limit
	p, err := forumApp(nil).Plan()
	require.NoError(t, err)
	c.Plan = p
	j := start(t, c)
	held := func(p engine.Progress) (n int64) {
		for _, s := range p.Stages {
			n += s.ExpiringBytes
		}
		return n
	}
	j.log.append(0, forumEntity("Thread", "t1", "f1", "08:00"), forumEntity("Forum", "f1", "x", "08:00"))
	j.log.append(0, forumEvent("waits", "t9", "10:00"))
	j.settle()
	const epochs, each = 40, 100
	var largest, before int64
	for i := range epochs {
		clock.Move(time.Minute)
		var items []record.Item
		for k := range each {
			items = append(items, forumEvent(fmt.Sprintf("m%d-%d", i, k), "t1", "10:00"))
		}
		j.log.append(0, items...)
		j.settle()
		if i%9 == 4 {
			j.stop()
			j.c.Workers = 1 + i%3
			j = start(t, j.c)
		}
		now := held(j.e.Progress())
		largest = max(largest, now-before)
		require.LessOrEqual(t, now, limit+largest)
		before = min(now, limit)
	}
	got := j.e.Progress()
	require.Positive(t, got.Dropped)
	require.EqualValues(t, 1, got.Counters["table.post.waiting"])

	// A better version corrects what is left, and all that is left.
	j.log.append(0, forumEntity("Thread", "t1", "f2", "09:00"), forumEntity("Forum", "f2", "y", "08:00"), forumEntity("Thread", "t9", "f2", "08:00"))
	j.settle()
	corrected := 0
	rows := forumRows(t, p, "post", m.published())
	for i := range epochs {
		n := 0
		for k := range each {
			if rows[fmt.Sprintf("m%d-%d", i, k)] == "t1 at 09:00, f2 at 08:00" {
				n++
			}
		}
		require.True(t, n == each || corrected == 0, "epoch %d: %d, and %d before it", i, n, corrected)
		corrected += n
	}
	require.Len(t, rows, epochs*each+1)
	require.Equal(t, "t9 at 08:00, f2 at 08:00", rows["waits"])
	require.Positive(t, corrected)
	require.Less(t, corrected, epochs*each)
}
