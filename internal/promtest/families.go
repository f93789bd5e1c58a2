package promtest

import (
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/stretchr/testify/require"
)

// Family is a metric with its series.
type Family struct {
	Name, Type, Help string
	Labels           []string // of its series, but for le
}

// Families are the metrics of an exposition.
func Families(t *testing.T, text []byte) (all []Family) {
	t.Helper()
	p, err := textparse.New(text, "text/plain; version=0.0.4", nil, textparse.ParserOptions{})
	require.NoError(t, err)
	last := func(name []byte) *Family {
		if n := len(all); n == 0 || all[n-1].Name != string(name) {
			all = append(all, Family{Name: string(name)})
		}
		return &all[len(all)-1]
	}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		switch entry {
		case textparse.EntryHelp:
			name, help := p.Help()
			last(name).Help = string(help)
		case textparse.EntryType:
			name, kind := p.Type()
			last(name).Type = string(kind)
		case textparse.EntrySeries:
			var l labels.Labels
			p.Labels(&l)
			f := &all[len(all)-1] // the exposition has a type before the samples of each
			l.Range(func(l labels.Label) {
				if l.Name != model.MetricNameLabel && l.Name != labels.BucketLabel && !slices.Contains(f.Labels, l.Name) {
					f.Labels = append(f.Labels, l.Name)
				}
			})
			slices.Sort(f.Labels)
		default: // comments
		}
	}
}
