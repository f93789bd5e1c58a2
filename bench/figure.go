package bench

import "slices"

// Figure is one measured quantity: the median of its runs, and the lowest and the highest.
type Figure struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	Runs   int     `json:"runs"`
}

func newFigure(runs []float64) Figure {
	runs = slices.Sorted(slices.Values(runs))
	n := len(runs)
	if n == 0 {
		return Figure{}
	}
	return Figure{Median: (runs[(n-1)/2] + runs[n/2]) / 2, Low: runs[0], High: runs[n-1], Runs: n}
}
