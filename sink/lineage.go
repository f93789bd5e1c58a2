package sink

import (
	"context"
	"errors"
	"iter"

	"millrace/plan"
)

// ErrFenced means that the target was claimed by a later lineage of the instance: another process has been started from a
// savepoint, and this one must stop.
var ErrFenced = errors.New("the target was claimed by a later lineage of the instance; stop this job, another goes on in its place")

// Point is a place in the histories of an instance: the end of an epoch of a lineage.
type Point struct {
	Lineage string `json:"lineage"`
	Epoch   uint64 `json:"epoch"`
}

// Lineage is one history of an instance. Rewinding to a savepoint begins a new one: it shares the epochs up to the savepoint
// with the lineage that made it, and counts on from there.
//
//	L1 ──1──2──3──4──5            L3's ancestors: L1 through 2, L2 through 4.
//	          └──3──4──5  L2      Its history: 1 and 2 of L1, 3 and 4 of L2, all from 5 on its own.
//	                 └──5──6  L3
type Lineage struct {
	ID        string  `json:"id"`
	Token     uint64  `json:"token"`               // higher than that of every lineage begun earlier; at least 1
	Ancestors []Point `json:"ancestors,omitempty"` // oldest first, each with the last epoch that is shared; epochs never fall
}

// Start is where the lineage left its parent; false when it has none.
func (l Lineage) Start() (Point, bool) {
	if len(l.Ancestors) == 0 {
		return Point{}, false
	}
	return l.Ancestors[len(l.Ancestors)-1], true
}

// Of is the lineage that made an epoch of the history.
func (l Lineage) Of(epoch uint64) string {
	for _, a := range l.Ancestors {
		if epoch <= a.Epoch {
			return a.Lineage
		}
	}
	return l.ID
}

// Holds reports whether the point is in the history.
func (l Lineage) Holds(p Point) bool { return p.Epoch > 0 && l.Of(p.Epoch) == p.Lineage }

// Fork is the lineage that begins at the end of an epoch of l's history.
func (l Lineage) Fork(epoch uint64, id string, token uint64) Lineage {
	out := Lineage{ID: id, Token: token}
	for _, a := range l.Ancestors {
		if a.Epoch >= epoch {
			break
		}
		out.Ancestors = append(out.Ancestors, a)
	}
	if epoch > 0 {
		out.Ancestors = append(out.Ancestors, Point{l.Of(epoch), epoch})
	}
	return out
}

// Archive is a sink whose target can go back by itself, as a table with snapshots can, and tell what it held. The runner begins it before
// other sinks.
type Archive interface {
	Sink

	// Keep makes sure that the target can go back to each of these points, and lets go of others. It is called between
	// two calls of Publish. A point that the target cannot go back to any more is left out.
	Keep(ctx context.Context, points []Point) error

	// Past returns what the target held where the lineage, which has an ancestor, began. It is called after Begin, and
	// what it returns is used concurrently with the archive's other methods.
	Past(ctx context.Context, l Lineage) (Past, error)
}

// Past is what an archive held at some epoch at or before the start of a lineage.
type Past interface {
	// Tables are those that can be corrected. The plan may not have some any more, or with other columns.
	Tables() []plan.Table

	// Rows yields the rows of one of Tables, which Row.Table is the index of. After an error it ends.
	Rows(ctx context.Context, table int) iter.Seq2[PastRow, error]
}

// PastRow is a row as it was published.
type PastRow struct {
	plan.Row
	Lineage, AppVersion string
}
