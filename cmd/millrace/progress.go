package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progressLine shows how far something is: one line that is overwritten on a terminal, a line every ten seconds elsewhere.
type progressLine struct {
	w        io.Writer
	terminal bool
	last     time.Time
	shown    bool
}

func newProgressLine(w io.Writer) *progressLine {
	return &progressLine{w: w, last: time.Now(), terminal: isTerminal(w)}
}

func (p *progressLine) show(format string, args ...any) {
	every := 10 * time.Second
	if p.terminal {
		every = 100 * time.Millisecond
	}
	if time.Since(p.last) < every {
		return
	}
	p.last = time.Now()
	if !p.terminal {
		fmt.Fprintf(p.w, format+"\n", args...)
		return
	}
	fmt.Fprintf(p.w, "\r\x1b[K"+format, args...)
	p.shown = true
}

// done ends the line, so that something else can be printed.
func (p *progressLine) done() {
	if p.shown {
		fmt.Fprintln(p.w)
		p.shown = false
	}
}

// barWidth is how many cells a bar has.
const barWidth = 24

// bar draws how much of a known total is done; nothing when the total is not known.
func bar(done, total int64) string {
	if total <= 0 {
		return ""
	}
	done = min(done, total)
	full := int(done * barWidth / total)
	return fmt.Sprintf("[%s%s] %3d %%  %.1f of %.1f MB  ",
		strings.Repeat("#", full), strings.Repeat("-", barWidth-full), done*100/total, float64(done)/1e6, float64(total)/1e6)
}
