package delivery

import (
	"fmt"
	"strings"
)

// verdict says it in a sentence.
func (c *Comparison) verdict() string {
	same, evidence := 0, int64(0)
	var parts []string
	for i := range c.Tables {
		t := &c.Tables[i]
		evidence += t.OtherEvidence
		if t.Same {
			same++
			continue
		}
		parts = append(parts, t.Table+": "+t.verdict(c.A, c.B))
	}
	head := fmt.Sprintf("%d of %d tables are the same", same, len(c.Tables))
	switch {
	case c.Same && len(c.Tables) == 1:
		head = "the table is the same"
	case c.Same:
		head = fmt.Sprintf("all %d tables are the same", len(c.Tables))
	}
	if evidence > 0 {
		parts = append(parts, fmt.Sprintf("%s the same values and other evidence", count(evidence, "row has", "rows have")))
	}
	return strings.Join(append([]string{head}, parts...), "; ")
}

func (t *TableComparison) verdict(a, b string) string {
	if t.OnlyIn != "" {
		return fmt.Sprintf("only in %s, %s", t.OnlyIn, count(t.OnlyA+t.OnlyB, "row", "rows"))
	}
	var parts, columns []string
	for _, c := range t.Columns {
		switch {
		case c.TypeA == "":
			parts = append(parts, fmt.Sprintf("column %s is only in %s", c.Column, b))
		case c.TypeB == "":
			parts = append(parts, fmt.Sprintf("column %s is only in %s", c.Column, a))
		case c.TypeA != c.TypeB:
			parts = append(parts, fmt.Sprintf("column %s is %s and %s", c.Column, c.TypeA, c.TypeB))
		}
		if c.Differ > 0 {
			columns = append(columns, c.Column)
		}
	}
	if t.Differ > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d rows differ in %s", t.Differ, t.RowsA-t.OnlyA, strings.Join(columns, ", ")))
	}
	for _, only := range []struct {
		n  int64
		in string
	}{{t.OnlyA, a}, {t.OnlyB, b}} {
		if only.n > 0 {
			parts = append(parts, fmt.Sprintf("%s only in %s", count(only.n, "row is", "rows are"), only.in))
		}
	}
	return strings.Join(parts, ", ")
}

func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
