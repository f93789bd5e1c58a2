package etl

import (
	"encoding/hex"
	"errors"

	"millrace/plan"
)

// mapRows is the last stage: it runs the app's Map on complete records.
//
// A record's row and its dead letter share one id, each in its table: what a corrected record no longer is, is withdrawn.
func (p *program) mapRows(in []plan.Element, out *plan.Output) {
	s := scratches.Get().(*scratch)
	defer s.release()
	var cells []plan.Cell
	for i := range in {
		e := &in[i]
		if e.Tag == tagWithdraw {
			p.withdrawLetter(&reader{b: e.Payload}, out)
			continue
		}
		var f *flow
		var fail failure
		if e.Tag == tagFailed {
			d := deadOf(e)
			f, fail = d.flow, d.failure
		} else {
			f = flowOf(e)
		}
		t := p.byName[f.table]
		row := plan.Row{
			Table: t.index, ID: s.arena.string(hex.AppendEncode(s.arena.room(32), f.id[:])), Rev: f.rev(t.steps()), First: f.first(),
			EventTime: f.eventTime, Account: f.account, Env: f.env, Sources: f.sources,
		}
		if e.Tag == tagRetract {
			p.withdrawn(row, t.index, out)
			p.withdrawn(row, len(p.tables), out)
			continue
		}
		if e.Tag == tagRecord {
			for len(cells) < len(t.columns.cells) {
				cells = append(cells, plan.Cell{})
			}
			s.reader.t = t
			s.reader.reset(f)
			err := guard(func() (err error) {
				s.row, err = t.encode(&s.reader, s.row[:0], cells[:len(t.columns.cells)])
				return err
			})
			if err == nil {
				row.Value = s.arena.keep(append(s.arena.room(len(s.row)), s.row...))
				p.mapped(row, t, out)
				continue
			}
			fail = s.reader.failure(err)
		}
		out.Count(t.counters.deadLetters, 1)
		if !row.First {
			p.withdrawn(row, t.index, out)
		}
		out.Row(p.deadLetter(row, t.name, t.source.base(), f.docs[0].bytes, fail))
	}
}

func (p *program) mapped(row plan.Row, t *transformer, out *plan.Output) {
	if row.First {
		out.Count(t.counters.rows, 1)
	} else {
		out.Count(t.counters.corrections, 1)
		p.withdrawn(row, len(p.tables), out)
	}
	out.Row(row)
}

func (p *program) withdrawn(row plan.Row, table int, out *plan.Output) {
	row.Table, row.Deleted, row.Value = table, true, nil
	out.Row(row)
}

// failure returns the reasons why Map made no row.
func (r *Reader) failure(err error) failure {
	f := failure{stage: "map"}
	for _, problem := range r.problems {
		f.reasons = append(f.reasons, problem.String())
	}
	if !errors.Is(err, errProblems) {
		f.reasons = append(f.reasons, err.Error())
	}
	return f
}

// dead is a record that becomes a dead letter.
type dead struct {
	failure
	flow *flow
}

// Append makes a dead record a plan.Message.
func (d *dead) Append(dst []byte) []byte { return d.flow.Append(d.failure.append(dst)) }

// deadOf returns the record that an element brings. Another stage sent it in this very epoch, so that it cannot be damaged.
func deadOf(e *plan.Element) *dead {
	if d, ok := e.Message.(*dead); ok {
		return d
	}
	r := reader{b: e.Payload}
	d := &dead{failure: r.failure()}
	var err error
	if d.flow, err = parseFlow(r.b); err != nil {
		panic(err)
	}
	return d
}

// failed is the message that makes a dead letter of f.
func failed(f *flow, why failure) plan.Element {
	return plan.Element{Key: f.id[:], Time: f.eventTime, Tag: tagFailed, Message: &dead{why, f}}
}
