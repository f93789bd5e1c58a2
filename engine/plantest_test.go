package engine_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/engine"
	"millrace/plan"
	"millrace/plan/plantest"
	"millrace/record"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	plantest.Run(t, func(t *testing.T, j plantest.Job) plantest.Runner {
		m := &memory{name: "memory"}
		c := config(t, newLog(), m)
		c.Plan, c.Workers, c.Now, c.Disorder = j.Plan, j.Workers, j.Now, j.Disorder
		return &runner{job: start(t, c), memory: m}
	})
}

// runner fits an engine to the suite.
type runner struct {
	*job
	memory *memory
}

func (r *runner) Feed(items ...record.Item) {
	r.log.append(0, items...)
	r.settle()
}

func (r *runner) Wake() { r.settle() }

func (r *runner) Restart() {
	r.stop()
	e, err := engine.Open(r.t.Context(), r.c)
	require.NoError(r.t, err)
	require.NoError(r.t, e.Close())
	r.job = start(r.t, r.c)
}

func (r *runner) Rows() []plan.Row           { return r.memory.published() }
func (r *runner) Counters() map[string]int64 { return r.e.Progress().Counters }
