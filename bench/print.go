package bench

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Print writes the report as aligned tables.
func (r Report) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	m := r.Machine
	fmt.Fprintf(w, "%s, %d cores, %s, commit %s\n", m.System, m.Cores, m.Go, cmp.Or(m.Commit, "not known"))
	r.printJobs(w)
	r.printStages(w)
	return w.Flush()
}

func (r Report) printJobs(w io.Writer) {
	if len(r.Jobs) == 0 {
		return
	}
	fmt.Fprint(w, "\nWhole job: parse, filter, joins, Avro, outbox, synced commits, Iceberg tables; floor: validating the same bytes\n\n")
	fmt.Fprintln(w, "APP\tKEYS\tCORRECTED\tWORKERS\t× FLOOR\tCPU µs\tFLOOR µs\tJSON.VALID µs\tRECORDS/S\tB/RECORD\tSTATE MB")
	for _, j := range r.Jobs {
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%s\t%s\t%s\t%.2f\t%s\t%.0f\t%.0f\n", j.App, j.Keys, correction(j.Correct), j.Workers,
			j.Times.text(1), j.CPU.text(1), j.Floor.text(2), j.Valid.Median, j.Rate.text(0), j.BytesPerRecord, float64(j.StateBytes)/1e6)
	}
}

func correction(s string) string {
	if s == "0s" {
		return "never"
	}
	return strings.TrimSuffix(strings.TrimSuffix(s, "0s"), "0m")
}

// text is the median, and the range around it.
func (f Figure) text(decimals int) string {
	return fmt.Sprintf("%.*f (%.*f–%.*f)", decimals, f.Median, decimals, f.Low, decimals, f.High)
}

// printStages shows the shares of each job in a column, in hundredths of its processor time.
func (r Report) printStages(w io.Writer) {
	if len(r.Jobs) == 0 {
		return
	}
	fmt.Fprint(w, "\nWhere its processor time goes, in %\n\n")
	head := []string{"", "", "", ""}
	for _, j := range r.Jobs {
		head[0] += "\t" + j.App
		head[1] += fmt.Sprintf("\t%d keys", j.Keys)
		head[2] += "\tcorrected " + correction(j.Correct)
		head[3] += fmt.Sprintf("\t%d workers", j.Workers)
	}
	fmt.Fprintln(w, strings.Join(head, "\n"))
	var stages []string
	for _, j := range r.Jobs {
		for _, s := range j.Stages {
			if !slices.Contains(stages, s.Stage) {
				stages = append(stages, s.Stage)
			}
		}
	}
	for _, stage := range stages {
		fmt.Fprint(w, stage)
		for _, j := range r.Jobs {
			part := 0.0
			for _, s := range j.Stages {
				if s.Stage == stage {
					part = s.Part
				}
			}
			fmt.Fprintf(w, "\t%.1f", 100*part)
		}
		fmt.Fprintln(w)
	}
}
