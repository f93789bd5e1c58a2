// Package oracletest holds etl to its promise that order does not matter: it makes random apps, records and schedules of their
// arrival, and compares what a runner makes of them with a model that knows no order.
//
// The one idea: the model (model.go) is small enough to be believed. It sees all records at once as JSON trees, has no state, no
// revisions and no keys, and shares nothing with etl but the words in which an app is written. Of time it knows the one thing that
// may matter: in which phase a record arrived, phases lying further apart than any WaitFor and CorrectFor, or being epochs where
// nothing is corrected.
//
// It does not look at how many revisions a row takes, only that they rise.
package oracletest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"millrace/etl"
	"millrace/plan"
)

// app is an app as data, for etl and for the model.
type app struct {
	harvest bool
	tables  []table
}

type table struct {
	name           string
	entity         bool // of entities; otherwise of events
	types, actions []string
	unwind         bool // one record for each element of event.list
	joins          []join
	columns        [3]string // paths, each nullable
	required       string    // a path; empty for none
}

type join struct {
	typ, field    string
	on, eq        []string // by condition
	wait, correct time.Duration
	otherwise     etl.Policy
}

func (t table) base() string {
	if t.entity {
		return "entity"
	}
	return "event"
}

type row struct {
	UID      *string `avro:"uid"`
	N        *string `avro:"n"`
	C0       *string `avro:"c0"`
	C1       *string `avro:"c1"`
	C2       *string `avro:"c2"`
	Required string  `avro:"required"`
}

// plan makes the plan of one version of the app. Versions differ in the paths they ask for, and so in what they store.
func (a app) plan(version int) (*plan.Plan, error) {
	// Schedules jump over years, and the model forgets nothing.
	out := etl.App{Name: "oracle-job", Version: fmt.Sprintf("1.0.%d", version), Retention: -1}
	if a.harvest {
		out.Harvest = []etl.Path{"event.object"}
	}
	for _, t := range a.tables {
		out.Tables = append(out.Tables, t.etl(version))
	}
	return out.Plan()
}

var errBoom = errors.New("boom")

func (t table) etl(version int) etl.Table[row] {
	out := etl.Table[row]{Name: t.name, From: etl.Events(t.types...).Actions(t.actions...)}
	if t.entity {
		out.From = etl.Entities(t.types...)
	}
	for _, j := range t.joins {
		jt := etl.JoinEntity(j.typ).ToField(j.field)
		built := jt.On(etl.Path(j.on[0])).Eq(etl.Path(j.eq[0]))
		for i := 1; i < len(j.on); i++ {
			built = built.And(etl.Path(j.on[i])).Eq(etl.Path(j.eq[i]))
		}
		out.Joins = append(out.Joins, built.WaitFor(j.wait).CorrectFor(j.correct).Else(j.otherwise))
	}
	if t.unwind {
		out.FlatMap = func(in etl.Record, emit func(etl.Record)) error {
			return in.Each("event.list", func(v etl.Value) error {
				item := in.With("item", v)
				if item.String("item.boom") != "" {
					return errBoom
				}
				if item.String("item.skip") == "" {
					emit(item)
				}
				return nil
			})
		}
	}
	out.Map = func(r *etl.Reader) (row, error) {
		opt := func(p string) *string { return etl.Opt[string](r, etl.Path(p)) }
		out := row{UID: opt(t.base() + ".uid"), N: opt("item.n"), C0: opt(t.columns[0]), C1: opt(t.columns[1]), C2: opt(t.columns[2])}
		if version > 0 {
			r.Has(etl.Path(fmt.Sprintf("%s.a%d", t.base(), version)))
		}
		if t.required != "" {
			out.Required = r.String(etl.Path(t.required))
		}
		return out, nil
	}
	return out
}

func (t table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: from %s %v %v", t.name, t.base(), t.types, t.actions)
	if t.unwind {
		b.WriteString(" unwind")
	}
	for _, j := range t.joins {
		fmt.Fprintf(&b, "\n    join %s to %s", j.typ, j.field)
		for i := range j.on {
			fmt.Fprintf(&b, " on %s = %s", j.on[i], j.eq[i])
		}
		fmt.Fprintf(&b, " wait %s correct %s else %s", j.wait, j.correct, [...]string{"emit nulls", "dead-letter", "drop"}[j.otherwise])
	}
	fmt.Fprintf(&b, "\n    columns %v required %q", t.columns, t.required)
	return b.String()
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// randomApp makes an app. Its joins lead into each other, share states, and need copies of them.
func randomApp(r *rand.Rand, f family) app {
	a := app{harvest: r.IntN(4) > 0}
	for i := range 1 + r.IntN(3) {
		t := table{name: fmt.Sprintf("t%d", i), entity: r.IntN(4) == 0 && f != short}
		docs := []string{t.base()}
		switch {
		case t.entity:
			t.types = []string{pick(r, "Person", "AssignableDigitalResource", "Membership")}
		default:
			t.types = pick(r, []string{"A"}, []string{"B"}, []string{"A", "B"})
			t.actions = pick(r, nil, nil, []string{"Created", "Deleted"})
			if t.unwind = r.IntN(4) == 0; t.unwind {
				docs = append(docs, "item")
			}
		}
		for n := range r.IntN(4) {
			j := randomJoin(r, f, docs)
			j.field = fmt.Sprintf("f%d", n)
			docs = append(docs, j.field)
			t.joins = append(t.joins, j)
		}
		for c := range t.columns {
			t.columns[c] = docs[(len(docs)-1+c)%len(docs)] + ".val"
		}
		if r.IntN(3) == 0 {
			t.required = docs[len(docs)-1] + ".val"
		}
		a.tables = append(a.tables, t)
	}
	return a
}

func randomJoin(r *rand.Rand, f family, docs []string) join {
	j := join{typ: pick(r, "Person", "Person", "AssignableDigitalResource", "Membership"), otherwise: pick(r, etl.EmitNulls, etl.DeadLetter, etl.Drop)}
	from := func() string {
		d := docs[max(r.IntN(len(docs)), r.IntN(len(docs)))]
		p := pick(r, d+".ref", d+".ref", d+".ref2", d+".ref.id", d+".id")
		if r.IntN(4) == 0 {
			p += "|" + docs[0] + pick(r, ".ref", ".ref2")
		}
		return p
	}
	switch j.typ {
	case "Membership":
		j.on = []string{"entity.ref", pick(r, "entity.ref2", "entity.ref2|entity.id")}
		j.eq = []string{from(), from()}
	default:
		j.on = []string{pick(r, "entity.id", "entity.id", "entity.id", "entity.id|entity.ref", "entity.ref|entity.id")}
		j.eq = []string{from()}
	}
	j.wait = pick(r, 30*time.Minute, time.Hour, 3*time.Hour)
	j.correct = pick(r, 1000*time.Hour, 1500*time.Hour)
	switch f {
	case phases:
		j.wait = pick(r, 0, j.wait, j.wait)
	case once:
		j.correct = 0
	case chaos:
		j.wait = pick(r, 0, j.wait, 20*time.Hour)
		j.correct = pick(r, 0, 10*time.Minute, time.Hour, 5*time.Hour, j.correct)
	}
	return j
}
