package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/control"
	"millrace/web"
)

func topCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show live what the jobs and tables do",
		Long:  "Show live what the jobs and tables of what is asked do, until interrupted. Where the output is no terminal it is printed once.",
		Args:  exactArgs(),
	}
	every := cmd.Flags().Duration("every", time.Second, "how often it is looked at")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *every < 100*time.Millisecond {
			return usagef("--every %s: want 100ms or more", *every)
		}
		c, err := newClient(cmd)
		if err != nil {
			return err
		}
		st, err := c.status(cmd.Context())
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		if !isTerminal(out) {
			_, err := io.WriteString(out, topText(st))
			return err
		}
		return c.showTop(cmd.Context(), out, st, *every)
	}
	return cmd
}

// The words of a terminal for a screen of its own, which leaves what was on the other one.
const (
	ownScreen   = "\x1b[?1049h\x1b[?25l"
	otherScreen = "\x1b[?25h\x1b[?1049l"
	fromTop     = "\x1b[H"
	clearLine   = "\x1b[K"
	clearRest   = "\x1b[J"
)

// showTop keeps the screen up to date until ctx ends. While the process does not answer, what is shown says so.
func (c client) showTop(ctx context.Context, out io.Writer, st web.Status, every time.Duration) (err error) {
	fmt.Fprint(out, ownScreen)
	defer fmt.Fprint(out, otherScreen)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		text := topText(st)
		if err != nil {
			text = fmt.Sprintf("%s\nnot up to date: %s\n", text, err)
		}
		fmt.Fprint(out, fromTop+strings.ReplaceAll(text, "\n", clearLine+"\r\n")+clearRest)
		select {
		case <-ctx.Done():
			return nil // it was asked for
		case <-tick.C:
		}
		var now web.Status
		if now, err = c.status(ctx); err == nil {
			st = now
		}
	}
}

func topText(st web.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "millrace %s  %s  %s  up %s\n", st.Version, st.DataDir, st.At.Local().Format(time.TimeOnly), st.At.Sub(st.StartedAt).Round(time.Second))
	fmt.Fprintf(&b, "collected %s (%s/s), in the lake %s\n\n", count(st.Collected.Items), rate(st.Collected.PerSecond), count(st.Lake.Rows()))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "JOB\tSTATE\tREAD\tREAD/S\tTO READ\tBEHIND\tEPOCH\tTO PUBLISH")
	var errs []string
	for _, j := range st.Jobs {
		name := j.Name
		if j.DataVersion != "" {
			name += " " + j.DataVersion
		}
		if j.Serving {
			name += " *"
		}
		behind := "–"
		if j.LagSeconds != nil {
			behind = (time.Duration(*j.LagSeconds*1000) * time.Millisecond).Round(100 * time.Millisecond).String()
		}
		perSecond := j.ReadPerSecond
		if j.State == string(control.Failed) {
			perSecond, behind = nil, "–"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%d\t%.1f MB\n", name, j.State, j.Read, rate(perSecond), count(j.LagRecords), behind, j.Epoch, float64(j.OutboxBytes)/1e6)
		if j.Error != "" {
			line, _, _ := strings.Cut(j.Error, "\n")
			errs = append(errs, j.UniqueID+": "+line)
		}
	}
	fmt.Fprintln(w, "\nTABLE\tROWS\tROWS/S\tWAITING\tDEAD LETTERS\tNEWEST EVENT")
	for _, t := range st.Tables {
		newest := "–"
		if !t.NewestEvent.IsZero() {
			newest = t.NewestEvent.Local().Format(time.DateTime)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", t.Name, count(t.Rows), rate(t.PerSecond), count(t.Waiting), count(t.DeadLetters), newest)
	}
	_ = w.Flush() // into memory
	for _, text := range append(errs, st.Problems...) {
		fmt.Fprintf(&b, "\n%s", text)
	}
	if len(errs)+len(st.Problems) > 0 {
		b.WriteString("\n")
	}
	return b.String()
}

// count is a number that may not be known.
func count(n *int64) string {
	if n == nil {
		return "–"
	}
	return fmt.Sprint(*n)
}

func rate(n *float64) string {
	if n == nil {
		return "–"
	}
	return fmt.Sprintf("%.0f", *n)
}
