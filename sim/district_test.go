package sim_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/caliper"
	"millrace/record"
	"millrace/sim"
)

// small is a district of which a day is a few thousand items.
func small(seed uint64) sim.Config {
	return sim.Config{Seed: seed, Students: 120, Schools: 2, Courses: 6}
}

func district(t *testing.T, cfg sim.Config) *sim.District {
	t.Helper()
	d, err := sim.New(cfg)
	require.NoError(t, err)
	return d
}

// take returns the next posts up to the end of the given day of the district, from 0.
func take(d *sim.District, day int) []sim.Post {
	var posts []sim.Post
	for {
		p := d.Next()
		posts = append(posts, p)
		if d.Cursor().Day > day {
			return posts[:len(posts)-1]
		}
	}
}

func digest(posts []sim.Post) [32]byte {
	h := sha256.New()
	for _, p := range posts {
		_ = json.NewEncoder(h).Encode([]any{p.At, p.Sensor, p.Gzip, p.ContentType, p.UserAgent, p.Bearer, p.Broken, p.Items})
		h.Write(p.Body)
	}
	return [32]byte(h.Sum(nil))
}

func TestSameSeedSameBytes(t *testing.T) {
	t.Parallel()
	a, b := take(district(t, small(7)), 1), take(district(t, small(7)), 1)
	require.Equal(t, len(a), len(b))
	require.Equal(t, digest(a), digest(b))
	require.NotEqual(t, digest(a), digest(take(district(t, small(8)), 1)))
}

// The collector's own reader must accept everything but what is bad on purpose, and tell from every item what the post
// says of it. What the ledger counts is counted here again from the bytes.
func TestPostsAreReadAsMeant(t *testing.T) {
	t.Parallel()
	posts := take(district(t, small(3)), 2)
	seen := map[string]bool{}
	identities := map[string]bool{}
	memberships := map[string]bool{}
	want := sim.Ledger{Distinct: sim.Distinct{ByTable: map[string]int64{}}}
	shapes := map[string]int{}
	for _, p := range posts {
		env, err := caliper.ReadEnvelope(p.Body)
		if p.Broken {
			require.ErrorIs(t, err, caliper.ErrMalformed, "%s", p.Body)
			require.Empty(t, p.Items)
			want.BrokenPayloads++
			continue
		}
		require.NoError(t, err, "%s", p.Body)
		require.Len(t, env.Items, len(p.Items))
		want.Envelopes++
		for i, it := range env.Items {
			e := p.Items[i]
			raw := string(p.Body[e.From:e.To])
			require.Equal(t, string(it.Raw), raw)
			require.Equal(t, !seen[raw], e.First, "%s", raw)
			if e.Kind == record.Reject {
				require.Error(t, it.Err, "%s", raw)
				want.BadItems++
				if e.First {
					want.Distinct.BadItems++
				}
				seen[raw] = true
				continue
			}
			require.NoError(t, it.Err, "%s", raw)
			require.Equal(t, e.Kind, it.Head.Kind, "%s", raw)
			require.Equal(t, e.Type, it.Head.Type, "%s", raw)
			require.Equal(t, e.ID, it.Head.ID, "%s", raw)
			shapes[it.Head.Type+" "+it.Head.Version]++
			want.Items++
			if !e.First {
				want.Redelivered++
			}
			table := tableOf(it.Head)
			require.Equal(t, table, e.Table, "%s", raw)
			switch it.Head.Kind {
			case record.Event:
				want.Events++
				// Events are told apart by identity: what has other bytes must have another.
				id := caliper.Identity(it.Raw, it.Head)
				require.Equal(t, seen[raw], identities[id], "%s", raw)
				identities[id] = true
				require.False(t, it.Head.EventTime.IsZero(), "%s", raw)
				if e.First {
					want.Distinct.Events++
					if table != "" {
						want.Distinct.ByTable[table]++
					}
					if it.Head.Action == "Graded" {
						want.Distinct.Graded++
					}
				}
			default:
				want.Entities++
				require.NotEmpty(t, it.Head.ID)
				if e.First {
					want.Distinct.Entities++
				}
				if table != "" && !memberships[it.Head.ID] {
					memberships[it.Head.ID] = true
					want.Distinct.ByTable[table]++
				}
			}
			seen[raw] = true
		}
	}
	for _, table := range []string{sim.QuizSubmission, sim.ItemResponse, sim.ActivityView, sim.SessionEvent, sim.Annotation, sim.Enrollment} {
		require.Positive(t, want.Distinct.ByTable[table], table)
	}
	for _, shape := range []string{
		"OutcomeEvent 1.0", "OutcomeEvent 1.1", "GradeEvent 1.1", "SessionEvent 1.0", "SessionEvent 1.1", "AnnotationEvent 1.0",
		"AnnotationEvent 1.1", "AssessmentItemEvent 1.0", "AssessmentItemEvent 1.1", "ViewEvent 1.0", "NavigationEvent 1.1",
		"Membership 1.0", "Membership 1.1", "AssignableDigitalResource 1.0", "AssignableDigitalResource 1.1", "AssessmentItem 1.1",
		"Person 1.0", "CourseSection 1.1", "CourseOffering 1.1", "Organization 1.1",
	} {
		require.Positive(t, shapes[shape], "%s in %v", shape, shapes)
	}
	require.Positive(t, want.BadItems)
	require.Positive(t, want.BrokenPayloads)
	require.Positive(t, want.Redelivered)

	got := sim.Count(posts)
	for name, n := range got.Irregular {
		require.Positive(t, n, name)
	}
	require.Len(t, got.Irregular, 16)
	got.Irregular = nil
	require.Equal(t, want, got)
}

func tableOf(h caliper.Head) string {
	switch h.Type {
	case "OutcomeEvent", "GradeEvent":
		return sim.QuizSubmission
	case "AssessmentItemEvent":
		if h.Action == "Completed" {
			return sim.ItemResponse
		}
	case "NavigationEvent", "ViewEvent":
		return sim.ActivityView
	case "SessionEvent":
		return sim.SessionEvent
	case "AnnotationEvent":
		return sim.Annotation
	case "Membership":
		return sim.Enrollment
	}
	return ""
}

// A student has a life: lessons on school days, homework in the evening, hardly anything at night and at the weekend.
func TestTimesAreBelievable(t *testing.T) {
	t.Parallel()
	var hours [24]int
	var days [7]int
	zone := time.FixedZone("", -5*3600)
	for _, p := range take(district(t, small(5)), 6) {
		for _, e := range p.Items {
			if e.Kind != record.Event || !e.First {
				continue
			}
			h, err := caliper.ReadHead(p.Body[e.From:e.To])
			require.NoError(t, err)
			at := h.EventTime.In(zone)
			hours[at.Hour()]++
			days[at.Add(-5*time.Hour).Weekday()]++
			require.False(t, h.EventTime.After(p.At), "an event is sent after it happened")
		}
	}
	sum := func(from, to int) (n int) {
		for h := from; h < to; h++ {
			n += hours[h]
		}
		return n
	}
	all := sum(0, 24)
	require.Greater(t, sum(8, 15), all*6/10, "lessons %v", hours)
	require.Greater(t, sum(16, 23), all/20, "homework %v", hours)
	require.Positive(t, sum(23, 24)+sum(0, 2), "night %v", hours)
	require.Less(t, sum(23, 24)+sum(0, 7), all/20, "night %v", hours)
	for d := time.Monday; d <= time.Friday; d++ {
		require.Greater(t, days[d], 3*max(days[time.Saturday], days[time.Sunday]), "%v", days)
	}
	require.Positive(t, days[time.Saturday], "%v", days)
}

// Going on from any cursor gives what going on without a stop would have given, also after a Finish.
func TestResumeGoesOn(t *testing.T) {
	t.Parallel()
	d := district(t, small(11))
	posts := take(d, 1)
	for _, stop := range []int{0, 1, 57, 200, len(posts) - 1, len(posts)} {
		a := district(t, small(11))
		for range stop {
			a.Next()
		}
		held := a.Finish()
		require.Equal(t, held, a.Finish(), "finishing again changes nothing")
		for n := range held + 10 {
			b, err := sim.Resume(small(11), a.Cursor())
			require.NoError(t, err)
			pa, pb := a.Next(), b.Next()
			require.Equal(t, pa.Position, pb.Position)
			require.Equal(t, string(pa.Body), string(pb.Body), "%d posts after a finish at %d", n, stop)
			require.Equal(t, pa.Items, pb.Items)
			require.Equal(t, a.Cursor(), b.Cursor())
		}
	}
}

// Finishing changes the order inside a day, and nothing else.
func TestFinishSendsEarlierWhatIsHeldBack(t *testing.T) {
	t.Parallel()
	plain := take(district(t, small(13)), 1)
	d := district(t, small(13))
	var posts []sim.Post
	held := 0
	for d.Cursor().Position < int64(len(plain)) {
		posts = append(posts, d.Next())
		if len(posts)%150 == 0 {
			held += d.Finish()
		}
	}
	require.Positive(t, held)
	require.Equal(t, sim.Count(plain), sim.Count(posts))
	require.Equal(t, bodies(plain), bodies(posts))
}

func bodies(posts []sim.Post) map[string]int {
	m := map[string]int{}
	for _, p := range posts {
		m[string(p.Body)]++
	}
	return m
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]sim.Config{
		"Students is -1":                       {Students: -1},
		"Schools is 9; choose between 1 and 5": {Students: 5, Schools: 9},
		"Periods is 8; choose between 1 and 7": {Courses: 9, Periods: 8},
		"Irregular.Blank is 1.5":               {Irregular: &sim.Irregular{Blank: 1.5}},
	} {
		_, err := sim.New(cfg)
		require.ErrorContains(t, err, want)
	}
	_, err := sim.Resume(small(1), sim.Cursor{Position: 1 << 30, Index: 1 << 30})
	require.ErrorContains(t, err, "the saved position is of another district")
}

// A regular district: every byte as it should be.
func TestWithoutIrregularities(t *testing.T) {
	t.Parallel()
	cfg := small(2)
	cfg.Irregular = &sim.Irregular{}
	posts := take(district(t, cfg), 0)
	for _, p := range posts {
		require.False(t, p.Broken)
		require.False(t, bytes.Contains(p.Body, []byte("null")), "%s", p.Body)
	}
	l := sim.Count(posts)
	require.Zero(t, l.Redelivered)
	require.Zero(t, l.Rejects())
	delete(l.Irregular, "event_without_id")
	require.Empty(t, l.Irregular)
}
