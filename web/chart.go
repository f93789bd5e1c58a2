package web

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

const (
	chartStep   = 5 * time.Second
	chartPoints = historyLength / 5 // ten minutes
)

// series is a value at chartPoints instants, chartStep apart, oldest first; NaN where unknown.
type series []float64

// levels reads a value at each instant of the chart that ends at end, between the samples before and after it, which must
// not be far apart. History is oldest first.
func levels(history []Status, end time.Time, value func(Status) *int64) series {
	out := make(series, chartPoints)
	end = end.Truncate(chartStep)
	next := 0 // the first sample at or after the instant
	for i := range out {
		out[i] = math.NaN()
		t := end.Add(-time.Duration(chartPoints-1-i) * chartStep)
		for next < len(history) && history[next].At.Before(t) {
			next++
		}
		if next == len(history) {
			break
		}
		after := history[next]
		before := after
		if next > 0 && after.At.After(t) {
			before = history[next-1]
		}
		from, to := value(before), value(after)
		gap := after.At.Sub(before.At)
		switch {
		case from == nil || to == nil || before.At.After(t) || gap >= 2*chartStep:
		case gap == 0:
			out[i] = float64(*to)
		default:
			out[i] = float64(*from) + float64(*to-*from)*float64(t.Sub(before.At))/float64(gap)
		}
	}
	return out
}

// perSecond turns a counter's levels into rates. A counter that went back has an unknown rate there.
func (s series) perSecond() series {
	out := make(series, len(s))
	for i := range s {
		out[i] = math.NaN()
		if i > 0 && s[i] >= s[i-1] {
			out[i] = (s[i] - s[i-1]) / chartStep.Seconds()
		}
	}
	return out
}

// known returns the values that are.
func (s series) known() []float64 {
	return slices.DeleteFunc(slices.Clone([]float64(s)), math.IsNaN)
}

// mean returns the mean of the known values in s[from:to], nil when there are none.
func (s series) mean(from, to int) *float64 {
	values := s[from:to].known()
	if len(values) == 0 {
		return nil
	}
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return new(sum / float64(len(values)))
}

// drawing is one series as SVG path data.
type drawing struct {
	Line string // along the values
	Area string // between them and zero
}

// draw fits s into a box, zero at its lower edge and top at its upper one. Unknown values leave gaps.
func (s series) draw(width, height, top float64) drawing {
	var line, area strings.Builder
	x := func(i int) float64 { return float64(i) * width / float64(len(s)-1) }
	start := -1
	end := func(i int) { // closes the run s[start:i]
		if start >= 0 {
			fmt.Fprintf(&area, "L%.1f %.1fL%.1f %.1fZ", x(i-1), height, x(start), height)
			start = -1
		}
	}
	for i, v := range s {
		if math.IsNaN(v) {
			end(i)
			continue
		}
		op := "L"
		if start < 0 {
			op, start = "M", i
		}
		y := height - min(v/top, 1)*height
		fmt.Fprintf(&line, "%s%.1f %.1f", op, x(i), y)
		fmt.Fprintf(&area, "%s%.1f %.1f", op, x(i), y)
	}
	end(len(s))
	return drawing{Line: line.String(), Area: area.String()}
}

// spark is a small chart without axes, drawn beside the number that it is the history of.
type spark struct {
	drawing
	Empty bool
}

const sparkWidth, sparkHeight = 120, 26

func newSpark(s series) spark {
	values := s.known()
	if len(values) < 2 {
		return spark{Empty: true}
	}
	// Half a pixel above, so that the peak's line is not cut.
	return spark{drawing: s.draw(sparkWidth, sparkHeight, max(slices.Max(values), 1)*1.06)}
}

// chart is rates over time with an axis, and the same numbers as a table.
type chart struct {
	Lines   []chartLine
	Grid    []gridLine
	Axis    []gridLine // the time axis: labels under the chart
	Minutes []chartMinute
	Empty   bool
}

type chartLine struct {
	drawing
	Name, Class string
}

// gridLine is a position in the chart's box and what it stands for.
type gridLine struct {
	At    float64
	Label string
}

// chartMinute is one row of the chart's table: mean rates of a minute.
type chartMinute struct {
	From   moment
	Values []*float64
}

const chartWidth, chartHeight = 360, 190

// newChart draws up to six series of rates with one axis.
func newChart(end, now time.Time, names, classes []string, all []series) chart {
	top, known := 0.0, 0
	for _, s := range all {
		for _, v := range s.known() {
			top = max(top, v)
			known++
		}
	}
	c := chart{Empty: known < 2}
	top = niceTop(top)
	for i, s := range all {
		c.Lines = append(c.Lines, chartLine{s.draw(chartWidth, chartHeight, top), names[i], classes[i]})
	}
	for _, f := range []float64{0, 0.5, 1} {
		c.Grid = append(c.Grid, gridLine{At: chartHeight * (1 - f), Label: formatCount(int64(top * f))})
	}
	end = end.Truncate(chartStep)
	span := chartStep * (chartPoints - 1)
	for m := 0; m <= 10; m += 2 {
		at := chartWidth * (1 - float64(time.Duration(m)*time.Minute)/float64(span))
		label := fmt.Sprintf("−%d", m)
		if m == 0 {
			label = "now"
		}
		if at >= 0 {
			c.Axis = append(c.Axis, gridLine{At: at, Label: label})
		}
	}
	perMinute := int(time.Minute / chartStep)
	for to := chartPoints; to >= perMinute; to -= perMinute {
		m := chartMinute{From: formatTime(end.Add(-time.Duration(chartPoints-to+perMinute)*chartStep), now)}
		known := false
		for _, s := range all {
			v := s.mean(to-perMinute, to)
			known = known || v != nil
			m.Values = append(m.Values, v)
		}
		if known {
			c.Minutes = append(c.Minutes, m)
		}
	}
	return c
}

// niceTop rounds up to 1, 2 or 5 times a power of ten, at least 10, so that half of it is a round number too.
func niceTop(v float64) float64 {
	for p := 10.0; ; p *= 10 {
		for _, f := range []float64{1, 2, 5} {
			if v <= f*p {
				return f * p
			}
		}
	}
}
