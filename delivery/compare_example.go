package delivery

import (
	"cmp"
	"slices"

	"millrace/plan"
)

// example keeps a row as an example if there are not enough of its kind. They come in order of ids.
func (t *tableReader) example(kind string, a, b *sortedRow, differing []Values) error {
	kinds := []string{kind}
	if kind == Differs {
		kinds = kinds[:0]
		for _, v := range differing {
			kinds = append(kinds, kind+" "+v.Column)
		}
	}
	if kind == "" || !slices.ContainsFunc(kinds, func(k string) bool { return t.shown[k] < t.cfg.Examples }) {
		return nil
	}
	for _, k := range kinds {
		t.shown[k]++
	}
	e := Example{Kind: kind, ID: string(cmp.Or(a, b).id), Values: []Values{}, SourcesA: []string{}, SourcesB: []string{}}
	e.Values = append(e.Values, differing...)
	for side, row := range []*sortedRow{a, b} {
		if row == nil {
			continue
		}
		s, err := t.show(side, row)
		if err != nil {
			return err
		}
		e.Account, e.Env = s.account, s.env
		if side == 0 {
			e.DayA, e.SourcesA = dayName(row.at), s.sources
		} else {
			e.DayB, e.SourcesB = dayName(row.at), s.sources
		}
		switch kind {
		case OnlyInA:
			for i, c := range s.columns {
				e.Values = append(e.Values, Values{Column: c, A: s.values[i]})
			}
		case OnlyInB:
			for i, c := range s.columns {
				e.Values = append(e.Values, Values{Column: c, B: s.values[i]})
			}
		}
	}
	t.out.Examples = append(t.out.Examples, e)
	return nil
}

// shownRow is a row as an example has it.
type shownRow struct {
	account, env string
	columns      []string // that are not null
	values       []any
	sources      []string
}

func (t *tableReader) show(side int, r *sortedRow) (out shownRow, err error) {
	out.sources = []string{}
	proof, err := decoded(evidence, r.evidence)
	if err != nil {
		return out, err
	}
	for _, s := range proof[0].List {
		out.sources = append(out.sources, string(s))
	}
	for _, part := range []struct {
		schema plan.Schema
		bytes  []byte
	}{{t.shared, r.values}, {t.retyped[side], r.retyped}} {
		cells, err := decoded(part.schema, part.bytes)
		if err != nil {
			return out, err
		}
		for i, c := range part.schema.Columns {
			switch {
			case c.Name == "account_id":
				out.account = string(cells[i].Bytes)
			case c.Name == "env_id":
				out.env = string(cells[i].Bytes)
			case !cells[i].Null:
				out.columns = append(out.columns, c.Name)
				out.values = append(out.values, shownValue(c.Type, &cells[i]))
			}
		}
	}
	return out, nil
}
