package elastic_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/plan"
	"millrace/sink"
	"millrace/sink/elastic"
	"millrace/sink/sinktest"
)

// line is an app of one tenant on a server.
type line struct {
	*harness
	account string
}

func newLine(t *testing.T, url string) *line {
	t.Helper()
	l := &line{harness: newHarness(t, url), account: fmt.Sprintf("line%d-%d", time.Now().UnixNano(), versions.Add(1))}
	t.Cleanup(func() {
		for index := range l.named(t, elastic.VersionAlias("quiz", "v1")+","+elastic.VersionAlias("quiz", "v2")+"*") {
			l.do(t, http.MethodDelete, "/"+index, "")
		}
	})
	return l
}

func (l *line) open(t *testing.T, version string) *elastic.Sink {
	t.Helper()
	s, err := elastic.New(elastic.Config{URLs: []string{l.url}, Plan: sinktest.Plan(), DataVersion: version, Account: l.account, Env: "prod"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// named are the indices of the line that have an alias.
func (l *line) named(t *testing.T, alias string) map[string]bool {
	t.Helper()
	status, body := l.do(t, http.MethodGet, "/_alias/"+alias, "")
	if status == http.StatusNotFound {
		return nil
	}
	require.Equal(t, 200, status, string(body))
	var found map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(body, &found))
	out := map[string]bool{}
	for index := range found {
		if strings.Contains(index, l.account) {
			out[index] = true
		}
	}
	return out
}

// row is a row of one of the line's tenants, each of which has an index of its own.
func (l *line) row(t *testing.T, tenant, id string) plan.Row {
	t.Helper()
	r := sinktest.Quiz(t, id, 1, 1)
	r.Account, r.Env = l.account+tenant, "prod"
	return r
}

func publish(t *testing.T, s *elastic.Sink, rows ...plan.Row) {
	t.Helper()
	rejected, err := s.Publish(t.Context(), sink.Batch{Rows: rows, Lineage: sinktest.First().ID, FromEpoch: 1, ToEpoch: 1})
	require.NoError(t, err)
	require.Empty(t, rejected)
}

// TestReadersSeeOneVersion makes one data version serve and then the other, back and forth, while both make indices for more and more
// tenants. Whoever looks finds those of one of the two.
func TestReadersSeeOneVersion(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func(testing.TB) string{
		"embedded":      embedded,
		"elasticsearch": func(t testing.TB) string { t.Helper(); return server(t, "elasticsearch") },
		"opensearch":    func(t testing.TB) string { t.Helper(); return server(t, "opensearch") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			readersSeeOneVersion(t, newLine(t, url(t)))
		})
	}
}

func readersSeeOneVersion(t *testing.T, l *line) {
	t.Helper()
	sinks := map[string]*elastic.Sink{"v1": l.open(t, "v1"), "v2": l.open(t, "v2")}
	for _, s := range sinks {
		require.NoError(t, s.Begin(t.Context(), sinktest.First(), nil))
		publish(t, s, l.row(t, "t0", "a"))
	}
	require.Empty(t, l.named(t, "quiz"), "a data version serves when it is told to")
	require.Len(t, l.named(t, elastic.VersionAlias("quiz", "v1")), 1)

	const rounds, tenants = 10, 12
	require.NoError(t, l.open(t, "v1").Serve(t.Context()))
	looking, stop := context.WithCancel(t.Context())
	var writers, readers sync.WaitGroup
	for _, s := range sinks {
		writers.Go(func() {
			for i := range tenants {
				publish(t, s, l.row(t, fmt.Sprintf("t%d", i+1), "a"))
			}
		})
	}
	looks, mixed := 0, []string(nil)
	readers.Go(func() {
		for looking.Err() == nil {
			seen := map[string]bool{}
			for index := range l.named(t, "quiz") {
				_, version, _ := strings.Cut(index, "-prod--")
				seen[version[:2]] = true
			}
			looks++
			if len(seen) != 1 {
				mixed = append(mixed, fmt.Sprint(seen))
			}
		}
	})
	for i := range rounds {
		require.NoError(t, l.open(t, []string{"v2", "v1"}[i%2]).Serve(t.Context()))
	}
	writers.Wait()
	stop()
	readers.Wait()
	require.Empty(t, mixed)
	require.Positive(t, looks)
	require.Equal(t, l.named(t, elastic.VersionAlias("quiz", "v1")), l.named(t, "quiz"), "all of the version that was made to serve last")
	require.Len(t, l.named(t, "quiz"), tenants+1)
}

// A table that the version before had and this one has not is no longer found: its rows are not this version's.
func TestTableOfTheVersionBefore(t *testing.T) {
	t.Parallel()
	l := newLine(t, embedded(t))
	first := l.open(t, "v1")
	require.NoError(t, first.Begin(t.Context(), sinktest.First(), nil))
	publish(t, first, l.row(t, "", "a"))
	require.NoError(t, first.Serve(t.Context()))
	require.Len(t, l.named(t, "quiz"), 1)

	p := sinktest.Plan()
	for i := range p.Tables {
		if p.Tables[i].Name == "quiz" {
			p.Tables[i].Name = "exam"
		}
	}
	second, err := elastic.New(elastic.Config{URLs: []string{l.url}, Plan: p, DataVersion: "v2", Account: l.account, Env: "prod"})
	require.NoError(t, err)
	require.NoError(t, second.Serve(t.Context()))
	require.Empty(t, l.named(t, "quiz"))
	require.NoError(t, l.open(t, "v1").Serve(t.Context()))
	require.Len(t, l.named(t, "quiz"), 1)
}

// An unversioned instance serves from its beginning, but not once a data version was made to.
func TestUnversionedServesFirst(t *testing.T) {
	t.Parallel()
	l := newLine(t, embedded(t))
	s := l.open(t, "")
	require.NoError(t, s.Begin(t.Context(), sinktest.First(), nil))
	publish(t, s, l.row(t, "", "a"))
	require.Equal(t, l.named(t, elastic.VersionAlias("quiz", "")), l.named(t, "quiz"))
	require.NoError(t, l.open(t, "v1").Serve(t.Context()))
	require.Empty(t, l.named(t, "quiz"))

	again := l.open(t, "")
	require.NoError(t, again.Begin(t.Context(), sinktest.First(), nil))
	publish(t, again, l.row(t, "other", "a"))
	require.Empty(t, l.named(t, "quiz"))
	require.Len(t, l.named(t, elastic.VersionAlias("quiz", "")), 2)
}

// Two apps that are both unversioned do not share an index when one of them has a suffix of its own, and it serves from its beginning.
func TestSuffix(t *testing.T) {
	t.Parallel()
	l := newLine(t, embedded(t))
	plain := l.open(t, "")
	other := sinktest.Plan()
	other.App = "other-job"
	own, err := elastic.New(elastic.Config{URLs: []string{l.url}, Plan: other, Suffix: "app_other_job", Account: l.account, Env: "prod"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, own.Close()) })
	for _, s := range []*elastic.Sink{plain, own} {
		require.NoError(t, s.Begin(t.Context(), sinktest.First(), nil))
		publish(t, s, l.row(t, "", "a"))
	}
	require.Len(t, l.named(t, elastic.VersionAlias("quiz", "")), 1)
	require.Len(t, l.named(t, elastic.VersionAlias("quiz", "app_other_job")), 1)
	require.Len(t, l.named(t, "quiz"), 2)
	require.NoError(t, own.Delete(t.Context()))
	require.Equal(t, l.named(t, elastic.VersionAlias("quiz", "")), l.named(t, "quiz"))
}

func TestDelete(t *testing.T) {
	t.Parallel()
	l := newLine(t, embedded(t))
	for _, version := range []string{"v1", "v2"} {
		s := l.open(t, version)
		require.NoError(t, s.Begin(t.Context(), sinktest.First(), nil))
		publish(t, s, l.row(t, "a", "x"), l.row(t, "b", "x"))
	}
	require.NoError(t, l.open(t, "v1").Serve(t.Context()))
	for range 2 { // again does nothing
		require.NoError(t, l.open(t, "v2").Delete(t.Context()))
		require.Empty(t, l.named(t, elastic.VersionAlias("quiz", "v2")))
		require.Len(t, l.named(t, "quiz"), 2)
	}
	for range 2 { // the one that serves: readers see none
		require.NoError(t, l.open(t, "v1").Delete(t.Context()))
		require.Empty(t, l.named(t, "quiz"))
	}
	s := l.open(t, "v3")
	require.NoError(t, s.Begin(t.Context(), sinktest.First(), nil))
	publish(t, s, l.row(t, "a", "x"))
	require.Empty(t, l.named(t, "quiz"), "until one is told to serve")
	require.NoError(t, s.Serve(t.Context()))
	require.Len(t, l.named(t, "quiz"), 1)
}
