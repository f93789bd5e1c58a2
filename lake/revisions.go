package lake

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"

	"millrace/plan"
)

// revisions are the rows of a batch that compete with others for their ids: with rows of the batch, or with rows that the
// table has, or may have, already. Most rows do not.
type revisions struct {
	contested []bool           // by row; nil when no row is
	latest    map[string]int32 // of a contested id the row with the highest revision that can be written
	deletes   []string         // ids, sorted, of which the table may have an earlier revision
}

// newest is whether row i, which has the given id, is to be written.
func (c *revisions) newest(i int, id string) bool {
	if c.contested == nil || !c.contested[i] {
		return true
	}
	latest, ok := c.latest[id]
	return ok && int(latest) == i
}

// revisions finds them. Those that cannot be written go to p.Rejected and do not compete.
func (t *Table) revisions(rows []plan.Row, p *Pending) (*revisions, error) {
	c := &revisions{contested: contested(rows)}
	if c.contested == nil {
		return c, nil
	}
	c.latest = map[string]int32{}
	first := map[string]bool{}
	cells := make([]plan.Cell, len(t.plan.Schema.Columns))
	for i := range rows {
		r := &rows[i]
		if !c.contested[i] {
			continue
		}
		if !r.Deleted {
			if err := t.plan.Schema.Decode(r.Value, cells); err != nil {
				return nil, fmt.Errorf("row %s: %w", r.ID, err)
			}
			if reason := t.fault(r, cells); reason != "" {
				p.Rejected = append(p.Rejected, Rejected{*r, reason})
				continue
			}
		}
		if r.First {
			first[r.ID] = true
		}
		if last, ok := c.latest[r.ID]; !ok || rows[last].Rev <= r.Rev {
			c.latest[r.ID] = int32(i)
		}
	}
	for id := range c.latest {
		if !first[id] {
			c.deletes = append(c.deletes, id)
		}
	}
	slices.Sort(c.deletes)
	return c, nil
}

// contested marks the rows that are not the only one with their id, or not the first revision. Nil means none.
//
// It runs once a row, so it has a hash table of its own: a map of the ids costs five times as much.
func contested(rows []plan.Row) []bool {
	type slot struct {
		hash uint32
		row  int32 // plus one
	}
	slots := make([]slot, 1<<bits.Len(uint(len(rows)*3/2)))
	mask := uint32(len(slots) - 1)
	seed := maphash.MakeSeed()
	var marked []bool
	mark := func(i int32) {
		if marked == nil {
			marked = make([]bool, len(rows))
		}
		marked[i] = true
	}
	for i := range rows {
		r := &rows[i]
		if !r.First || r.Deleted {
			mark(int32(i))
		}
		h := maphash.String(seed, r.ID)
		hash := uint32(h >> 32)
		for at := uint32(h) & mask; ; at = (at + 1) & mask {
			s := &slots[at]
			if s.row == 0 {
				*s = slot{hash, int32(i + 1)}
				break
			}
			if s.hash == hash && rows[s.row-1].ID == r.ID {
				mark(s.row - 1)
				mark(int32(i))
				break
			}
		}
	}
	return marked
}
