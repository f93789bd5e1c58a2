package elastic_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/plan"
	"millrace/sink"
	"millrace/sink/elastic"
	"millrace/sink/sinktest"
)

// What is read back of a document is what its row said.
func TestReadDocument(t *testing.T) {
	t.Parallel()
	h := newHarness(t, embedded(t))
	s := h.Open(t)
	require.NoError(t, s.Begin(t.Context(), sinktest.First(), nil))
	rows := []plan.Row{sinktest.Quiz(t, "a", 1, 1), sinktest.Quiz(t, "b", plan.MaxRev, 2)}
	rejected, err := s.Publish(t.Context(), sink.Batch{Lineage: sinktest.Lineage, FromEpoch: 1, ToEpoch: 2, Rows: rows})
	require.NoError(t, err)
	require.Empty(t, rejected)
	require.NoError(t, s.Close())

	table := sinktest.Plan().Tables[sinktest.TableQuiz]
	for id, want := range h.Rows(t, "quiz") {
		status, answer := h.do(t, http.MethodGet, "/"+h.index("quiz")+"/_doc/"+id, "")
		require.Equal(t, 200, status, string(answer))
		var doc struct {
			Version uint64          `json:"_version"`
			Source  json.RawMessage `json:"_source"`
		}
		require.NoError(t, json.Unmarshal(answer, &doc))
		got, err := elastic.ReadDocument(table, id, doc.Version, doc.Source)
		require.NoError(t, err)
		for name, v := range got {
			require.Equal(t, want[name], v, name)
		}
		require.Len(t, got, len(table.Schema.Columns)+len(plan.MetaColumns))

		for reason, change := range map[string][2]string{
			"its row_id is not its id":                      {`"row_id":"` + id + `"`, `"row_id":"x"`},
			"its score has another type than its column":    {`"score":`, `"score":"7","was":`},
			"its revision is 5 and its":                     {`"_rev":`, `"_rev":5,"was":`},
			"its attempts has another type than its column": {`"attempts":`, `"attempts":1e3,"was":`},
			"its graded has another type than its column":   {`"graded":`, `"graded":"noon","was":`},
			"its answer has another type than its column":   {`"answer":`, `"answer":"%","was":`},
			"its tags has another type than its column":     {`"tags":`, `"tags":[1],"was":`},
			"its late has another type than its column":     {`"late":`, `"late":"yes","was":`},
			"its student has another type than its column":  {`"student":`, `"student":8,"was":`},
			"the document is no JSON object":                {`{`, `[`},
		} {
			source := strings.Replace(string(doc.Source), change[0], change[1], 1)
			_, err := elastic.ReadDocument(table, id, doc.Version, []byte(source))
			require.ErrorContains(t, err, reason)
		}
		_, err = elastic.ReadDocument(table, id, 100_000_000_000_000_000, doc.Source)
		require.ErrorContains(t, err, fmt.Sprint("its revision is ", got["_rev"], " and its version 100000000000000000"))
	}
}
