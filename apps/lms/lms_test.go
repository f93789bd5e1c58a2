package lms_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"millrace/apps/lms"
	"millrace/caliper"
	"millrace/etl/etltest"
	"millrace/plan"
	"millrace/record"
)

func newPlan(t *testing.T) *plan.Plan {
	t.Helper()
	p, err := lms.App.Plan()
	require.NoError(t, err)
	return p
}

func item(t *testing.T, raw string) record.Item {
	t.Helper()
	head, err := caliper.ReadHead([]byte(raw))
	require.NoError(t, err, raw)
	sent := time.Date(2018, 8, 27, 12, 0, 0, 0, time.UTC)
	return record.Item{
		Account: "deepthought", Env: "deepthought3", SourceType: "EDGENUITY_LMS", Kind: head.Kind, ID: head.ID,
		SendTime: sent, ReceivedAt: sent, Bytes: []byte(raw),
	}
}

// TestTables feeds a script's items, a line each, and prints the rows that they become:
//
//	run
//	item
//	item
//	----
//	table {row}
func TestTables(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			require.Equal(t, "run", d.Cmd)
			j := etltest.New(newPlan(t))
			for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
				j.Feed(item(t, line))
			}
			return rows(t, j)
		})
	})
}

// rows lists all rows, and the counters that say where the rest is.
func rows(t *testing.T, j *etltest.Job) string {
	t.Helper()
	var lines []string
	for _, table := range j.Plan.Tables {
		for _, row := range j.Rows(table.Name) {
			for c, v := range row {
				if b, ok := v.([]byte); ok {
					row[c] = fmt.Sprintf("%d bytes", len(b))
				}
				if row[c] == nil {
					delete(row, c)
				}
			}
			b, err := json.Marshal(row)
			require.NoError(t, err)
			lines = append(lines, table.Name+" "+string(b))
		}
	}
	sort.Strings(lines)
	for _, c := range j.Plan.Counters {
		if n := j.Counters[c]; n != 0 && strings.HasSuffix(c, ".waiting") {
			lines = append(lines, fmt.Sprintf("%s %d", c, n))
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// The three records that the talk prints give one complete row in each of their six orders. Its own join would give none: the
// Membership names the section, and it compares it with the course.
func TestTalk(t *testing.T) {
	t.Parallel()
	records := []string{
		`{"@type":"http://purl.imsglobal.org/caliper/v1/OutcomeEvent","generated":{"actor":{"@id":"https://example.edu/users/554433"},"totalScore":92.4},"object":{"assignable":{"@id":"https://example.edu/terms/201801/courses/7/sections/1/assign/2"}}}`,
		`{"@type":"http://purl.imsglobal.org/caliper/v1/AssignableDigitalResource","@id":"https://example.edu/terms/201801/courses/7/sections/1/assign/2","extensions":{"courseSection":{"@id":"https://example.edu/terms/201801/courses/7/sections/1","subOrganizationOf":{"@id":"https://example.edu/terms/201801/courses/7"}}}}`,
		`{"@type":"http://purl.imsglobal.org/caliper/v1/lis/Membership","member":{"@id":"https://example.edu/users/554433","type":"Person"},"organization":{"@id":"https://example.edu/terms/201801/courses/7/sections/1","type":"CourseSection","subOrganizationOf":{"@id":"https://example.edu/terms/201801/courses/7","type":"CourseOffering"}},"roles":["Learner"]}`,
	}
	var ids []string
	for _, order := range [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		j := etltest.New(newPlan(t))
		for _, i := range order {
			j.Feed(item(t, records[i]))
		}
		rows := j.Rows("quiz_submission")
		require.Len(t, rows, 1, "order %v", order)
		for id, row := range rows {
			ids = append(ids, id)
			require.Equal(t, "Learner", row["role"], "order %v", order)
			require.Equal(t, 92.4, row["score"])
			require.Equal(t, "https://example.edu/terms/201801/courses/7", row["courseId"])
			require.Equal(t, "https://example.edu/users/554433", row["studentId"])
		}
		require.Empty(t, j.Rows("dead_letter"))
	}
	for _, id := range ids {
		require.Equal(t, ids[0], id, "one row, whatever the order")
	}
}

func fixtures(t *testing.T, version string) map[string]string {
	t.Helper()
	shared := os.Getenv("MILLRACE_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	dir := filepath.Join(shared, "caliper", "fixtures", version)
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	require.NoError(t, err)
	if len(names) == 0 {
		t.Skipf("the official Caliper fixtures are not at %s", dir)
	}
	out := map[string]string{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		out[strings.TrimSuffix(filepath.Base(name), ".json")] = string(b)
	}
	return out
}

// The official Outcome fixture of 1.0 has bare strings for student and quiz. With descriptions of its quiz and its membership it is
// one complete row.
func TestOfficialOutcome(t *testing.T) {
	t.Parallel()
	j := etltest.New(newPlan(t))
	j.Feed(item(t, fixtures(t, "v1p0")["caliperAssessmentOutcomeEvent"]))
	require.Empty(t, j.Rows("quiz_submission"))
	j.Feed(
		item(t, `{"@context":"http://purl.imsglobal.org/ctx/caliper/v1/Context","@id":"https://example.edu/politicalScience/2015/american-revolution-101/assessment/001","@type":"http://purl.imsglobal.org/caliper/v1/Assessment","dateModified":"2015-09-02T11:30:00.000Z","extensions":{"courseSection":{"@id":"https://example.edu/politicalScience/2015/american-revolution-101/section/001","subOrganizationOf":{"@id":"https://example.edu/politicalScience/2015/american-revolution-101"}}}}`),
		item(t, `{"@context":"http://purl.imsglobal.org/ctx/caliper/v1/Context","@id":"https://example.edu/membership/001","@type":"http://purl.imsglobal.org/caliper/v1/lis/Membership","member":"https://example.edu/user/554433","organization":"https://example.edu/politicalScience/2015/american-revolution-101/section/001","roles":["http://purl.imsglobal.org/vocab/lis/v2/membership#Learner"],"dateModified":"2015-09-02T11:30:00.000Z"}`),
	)
	rows := j.Rows("quiz_submission")
	require.Len(t, rows, 1)
	for _, row := range rows {
		require.Equal(t, "Learner", row["role"])
		require.Equal(t, 3.0, row["score"])
		require.Equal(t, "https://example.edu/politicalScience/2015/american-revolution-101", row["courseId"])
		require.Equal(t, "https://example.edu/user/554433", row["studentId"])
	}
}

// Every official fixture that a table reads becomes a row or waits for its entities: none is a dead letter.
func TestOfficialFixtures(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v1p0", "v1p1"} {
		j := etltest.New(newPlan(t))
		for name, raw := range fixtures(t, version) {
			if strings.Contains(name, "Envelope") || strings.Contains(name, "Payload") {
				continue
			}
			j.Feed(item(t, raw))
		}
		require.Empty(t, j.Rows("dead_letter"), version)
		for _, table := range []string{"item_response", "activity_view", "session_event", "annotation"} {
			require.NotEmpty(t, j.Rows(table), "%s of %s", table, version)
		}
		require.Positive(t, int64(len(j.Rows("quiz_submission")))+j.Counters["table.quiz_submission.waiting"], version)
	}
}
