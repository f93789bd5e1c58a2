package web

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFormatNumber(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   any
		want string
	}{
		{0, "0"},
		{int64(999), "999"},
		{int64(1000), "1,000"},
		{uint64(1_204_551), "1,204,551"},
		{int64(-1234), "−1,234"},
		{int64(math.MinInt64), "−9,223,372,036,854,775,808"},
		{uint64(math.MaxUint64), "9,223,372,036,854,775,807"},
		{new(int64(12)), "12"},
		{(*int64)(nil), "–"},
		{"12", "–"},
	} {
		require.Equal(t, c.want, formatNumber(c.in), "%v", c.in)
	}
}

func TestFormatRate(t *testing.T) {
	t.Parallel()
	for in, want := range map[float64]string{0: "0", 0.04: "0", 0.26: "0.3", 9.94: "9.9", 9.96: "10", 1203.6: "1,204", math.Inf(1): "–"} {
		require.Equal(t, want, formatRate(&in), "%v", in)
	}
	nan := math.NaN()
	require.Equal(t, "–", formatRate(&nan))
	require.Equal(t, "–", formatRate(nil))
}

func TestFormatSeconds(t *testing.T) {
	t.Parallel()
	for in, want := range map[float64]string{
		0: "0 s", 0.42: "0.4 s", 5: "5 s", 12.7: "12 s", 119: "119 s", 120: "2 min", 7199: "119 min", 7200: "2 h", 172_799: "47 h", 172_800: "2 d", 1e9: "11,574 d",
	} {
		require.Equal(t, want, formatSeconds(&in), "%v", in)
	}
	require.Equal(t, "–", formatSeconds(nil))
}

func TestFormatBytes(t *testing.T) {
	t.Parallel()
	for in, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 9_949: "9.9 kB", 640_000: "640 kB", 999_600: "1.0 MB", 2_410_000: "2.4 MB", 5e12: "5.0 TB", 4e15: "4,000 TB",
	} {
		require.Equal(t, want, formatBytes(in), "%d", in)
	}
}

func TestFormatTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 9, 14, 12, 0, 0, 0, time.FixedZone("", 2*3600))
	for ago, want := range map[time.Duration]string{
		0: "now", 900 * time.Millisecond: "now", 1900 * time.Millisecond: "1 s ago", 3 * time.Minute: "3 min ago", 23 * time.Hour: "23 h ago",
		24 * time.Hour: "2026-09-13 10:00 UTC", -5 * time.Second: "in 5 s", -48 * time.Hour: "2026-09-16 10:00 UTC",
	} {
		require.Equal(t, want, formatTime(now.Add(-ago), now).Text, "%v", ago)
	}
	require.Equal(t, "2026-09-14 10:00:00 UTC", formatTime(now, now).Exact)
	require.Equal(t, moment{Text: "–"}, formatTime(time.Time{}, now))
}

func TestShorten(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Learner": "Learner",
		"https://demo1.example.edu/attempts/5540":         "…/attempts/5540",
		"https://a.example/a/very/long/way/to/a/course/7": "…y/long/way/to/a/course/7",
		"urn:uuid:3f2a9c1d-0000-4000-8000-000000001540":   "…0-4000-8000-000000001540",
		"a sentence that is longer than that, as it is":   "a sentence that is longer than that, as it is",
		"https://host-without-a-path.example.edu":         "…thout-a-path.example.edu",
	} {
		require.Equal(t, want, shorten(in), in)
	}
}

// TestSeries: a counter that starts again, and samples that are missing, leave gaps and no wrong rates.
func TestSeries(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 9, 14, 12, 0, 0, 0, time.UTC)
	var history []Status
	for i := range 30 {
		if i >= 12 && i < 22 { // nobody sampled
			continue
		}
		n := int64(100 * i)
		if i >= 25 {
			n = int64(10 * i) // started again
		}
		history = append(history, Status{At: start.Add(time.Duration(i) * time.Second), Collected: Collected{Items: new(n)}})
	}
	s := levels(history, start.Add(29*time.Second), func(st Status) *int64 { return st.Collected.Items }).perSecond()
	require.Len(t, s, chartPoints)
	tail := s[chartPoints-6:] // 12:00:00, :05, :10, :15, :20, :25
	require.True(t, math.IsNaN(tail[0]), "nothing before")
	require.InDelta(t, 100, tail[1], 0.01)
	require.InDelta(t, 100, tail[2], 0.01)
	for i, why := range []string{"not sampled", "not sampled", "went back"} {
		require.True(t, math.IsNaN(tail[3+i]), why)
	}
	require.Len(t, s.known(), 2)

	d := s.draw(100, 10, 100)
	require.NotContains(t, d.Line, "NaN")
	require.NotContains(t, d.Area, "NaN")
}

// TestSeriesOfSparseSamples: sampled every four seconds, a steady counter has a steady rate.
func TestSeriesOfSparseSamples(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 9, 14, 12, 0, 0, 0, time.UTC)
	var history []Status
	for i := 0; i <= 120; i += 4 {
		history = append(history, Status{At: start.Add(time.Duration(i) * time.Second), Collected: Collected{Items: new(int64(100 * i))}})
	}
	s := levels(history, start.Add(2*time.Minute), func(st Status) *int64 { return st.Collected.Items }).perSecond()
	require.Len(t, s.known(), 24)
	for _, v := range s.known() {
		require.InDelta(t, 100, v, 0.01)
	}
}

func TestNiceTop(t *testing.T) {
	t.Parallel()
	for in, want := range map[float64]float64{0: 10, 10: 10, 11: 20, 412: 500, 501: 1000, 120_000: 200_000} {
		require.Equal(t, want, niceTop(in), "%v", in)
	}
}
