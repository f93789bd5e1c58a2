package bench

// Goal is what a figure should be, and whether it is.
type Goal struct {
	What  string  `json:"what"`
	Bound string  `json:"bound"` // at most, at least
	Goal  float64 `json:"goal"`
	Got   float64 `json:"got"` // a median
	Met   bool    `json:"met"`
}

const (
	atMost  = "at most"
	atLeast = "at least"
)

// goals are those of which everything was measured.
func goals(r Report) (out []Goal) {
	add := func(what, bound string, goal, got float64) {
		if got != 0 {
			out = append(out, Goal{what, bound, goal, got, bound == atMost && got <= goal || bound == atLeast && got >= goal})
		}
	}
	job := func(keys int, correct string, workers int) Job {
		for _, j := range r.Jobs {
			if j.App == string(twoJoins) && j.Keys == keys && j.Correct == correct && j.Workers == workers {
				return j
			}
		}
		return Job{}
	}
	measured := func(what string) float64 {
		for _, m := range r.Measures {
			if m.What == what {
				return m.Median
			}
		}
		return 0
	}
	ratio := func(a, b float64) float64 {
		if b == 0 {
			return 0
		}
		return a / b
	}
	never, hour := "0s", "1h0m0s"
	add("× floor, 10⁶ keys, never corrected", atMost, 4.5, job(1_000_000, never, 1).Times.Median)
	add("× floor, 10⁶ keys, corrected for 1 h", atMost, 6, job(1_000_000, hour, 1).Times.Median)
	add("× floor with 10⁷ keys ÷ with 10⁵, never corrected", atMost, 1.5,
		ratio(job(10_000_000, never, 1).Times.Median, job(100_000, never, 1).Times.Median))
	add("× floor with 10⁷ keys ÷ with 10⁵, corrected for 1 h", atMost, 1.5,
		ratio(job(10_000_000, hour, 1).Times.Median, job(100_000, hour, 1).Times.Median))
	add("records/s of two workers ÷ of one, 10⁶ keys, never corrected", atLeast, 1.7,
		ratio(job(1_000_000, never, 2).Rate.Median, job(1_000_000, never, 1).Rate.Median))
	add("records/s of two workers ÷ of one, 10⁶ keys, corrected for 1 h", atLeast, 1.7,
		ratio(job(1_000_000, hour, 2).Rate.Median, job(1_000_000, hour, 1).Rate.Median))
	add(timesFollowing("one application of four"), atLeast, 3, measured(timesFollowing("one application of four")))
	add(timesFollowing("all of four applications"), atLeast, 3, measured(timesFollowing("all of four applications")))
	add("collector, events/s, durable", atLeast, 30_000, measured(collected(envelope)))
	add("event to searchable row at 5,000/s, 99 of 100, ms", atMost, 250, measured(searchable("99 of 100")))
	add("savepoint of 10⁶ keys, s", atMost, 1, measured((&trial{app: twoJoins, keys: 1_000_000}).state("first savepoint of")))
	return out
}
