package bench

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"runtime/pprof"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// Share is the part of the processor time that one kind of work took.
type Share struct {
	Stage string  `json:"stage"`
	Part  float64 `json:"part"` // of 1
}

// Kinds of work, as shares name them.
const (
	workScan    = "scan, read"
	workDedup   = "dedup, fingerprint"
	workLoad    = "join state"
	workJoin    = "join logic"
	workMap     = "map, Avro"
	workOutbox  = "outbox"
	workCommit  = "commit"
	workPublish = "Iceberg publish"
	workMemory  = "GC, malloc"
	workOther   = "other"
)

// kinds says what code does which work, by a part of the function's full name or of its file's. The first that a frame has decides for
// the frame; of a stack, the innermost frame decides that any of them has.
var kinds = []struct{ in, work string }{
	{"runtime.gcBgMarkWorker", workMemory},
	{"runtime.gcAssistAlloc", workMemory},
	{"runtime.bgsweep", workMemory},
	{"runtime.bgscavenge", workMemory},
	{"runtime.mallocgc", workMemory},
	{"runtime.growslice", workMemory},
	{"runtime.newobject", workMemory},
	{"runtime.makeslice", workMemory},
	{"runtime.wbBufFlush", workMemory},

	{"record.Fingerprint", workDedup},
	{"/record/fingerprint", workDedup},
	{"/etl/dedup", workDedup},
	{"/record/", workScan},
	{"/caliper/", workScan},
	{"/etl/read.go", workScan},
	{"/etl/map.go", workMap},
	{"/etl/reader.go", workMap},
	{"/etl/columns.go", workMap},
	{"/apps/", workMap},
	{"/plan/", workMap},
	{"/twmb/avro", workMap},
	{"/etl/", workJoin},

	{"/engine/view.go", workLoad},
	{"/engine/outbox.go", workOutbox},
	{"/engine/block.go", workOutbox},
	{"/engine/publish.go", workPublish},
	{"/sink/iceberg", workPublish},
	{"/lake/", workPublish},
	{"parquet-go/", workPublish},
	{"apache/iceberg-go", workPublish},
	{"modernc.org/sqlite", workPublish},
	{"(*Engine).commit", workCommit},
	{"/engine/state.go", workCommit},
	{"/engine/epoch.go", workCommit},
	{"/engine/timers.go", workCommit},
	{"/engine/group.go", workJoin},
	{"/engine/keys.go", workJoin},
	{"/engine/step.go", workJoin},
	{"/engine/feed.go", workScan},
	{"/bench/", workScan},
}

// profiles are CPU profiles of runs of one thing.
type profiles struct{ list []*profile.Profile }

func (p *profiles) add(bytes []byte) error {
	parsed, err := profile.ParseData(bytes)
	if err != nil {
		return fmt.Errorf("read the CPU profile: %w", err)
	}
	p.list = append(p.list, parsed)
	return nil
}

// take profiles the processor while fn runs.
func (p *profiles) take(fn func() error) error {
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		return fmt.Errorf("profile the processor: %w", err)
	}
	err := fn()
	pprof.StopCPUProfile()
	if err != nil {
		return err
	}
	return p.add(b.Bytes())
}

// merge joins the profiles and labels their samples with the setting that they were taken in.
func (p *profiles) merge(setting string) (*profile.Profile, error) {
	merged, err := profile.Merge(p.list)
	if err != nil {
		return nil, fmt.Errorf("merge CPU profiles: %w", err)
	}
	for _, s := range merged.Sample {
		s.Label = map[string][]string{"setting": {setting}}
	}
	return merged, nil
}

// write writes all profiles as one.
func (p *profiles) write(w io.Writer) error {
	merged, err := profile.Merge(p.list)
	if err != nil {
		return fmt.Errorf("merge CPU profiles: %w", err)
	}
	var out bytes.Buffer
	if err := merged.Write(&out); err != nil {
		return fmt.Errorf("write the CPU profile: %w", err)
	}
	_, err = w.Write(out.Bytes())
	return err
}

// shares sorts the samples of a CPU profile into kinds of work.
func shares(p *profile.Profile) []Share {
	known := map[uint64]string{} // by function
	work := func(f *profile.Function) string {
		w, ok := known[f.ID]
		if !ok {
			for _, k := range kinds {
				if strings.Contains(f.Name, k.in) || strings.Contains(f.Filename, k.in) {
					w = k.work
					break
				}
			}
			known[f.ID] = w
		}
		return w
	}
	var total float64
	sum := map[string]float64{}
	for _, s := range p.Sample {
		v := float64(s.Value[len(s.Value)-1])
		total += v
		sum[sampleWork(s, work)] += v
	}
	var out []Share
	for w, v := range sum {
		out = append(out, Share{w, v / total})
	}
	slices.SortFunc(out, func(a, b Share) int { return cmp.Or(cmp.Compare(b.Part, a.Part), cmp.Compare(a.Stage, b.Stage)) })
	return out
}

// sampleWork is what the stack of a sample was doing. What Pebble does by itself, outside any call of ours, belongs to the commit:
// flushes and compactions.
func sampleWork(s *profile.Sample, work func(*profile.Function) string) string {
	pebble := false
	for _, l := range s.Location {
		for _, line := range l.Line {
			if line.Function == nil {
				continue
			}
			if w := work(line.Function); w != "" {
				return w
			}
			pebble = pebble || strings.Contains(line.Function.Name, "cockroachdb/pebble")
		}
	}
	if pebble {
		return workCommit
	}
	return workOther
}
