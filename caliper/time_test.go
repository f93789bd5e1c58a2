package caliper_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/caliper"
	"millrace/record"
)

// value returns a JSON document as a Value.
func value(t *testing.T, doc string) record.Value {
	t.Helper()
	paths, err := record.Compile("")
	require.NoError(t, err)
	out := make([]record.Value, 1)
	require.NoError(t, paths.Scan([]byte(doc), out), doc)
	return out[0]
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]string{
		`"2016-11-15T10:15:00.000Z"`:                "2016-11-15T10:15:00Z",
		`"2016-11-15T10:15:00Z"`:                    "2016-11-15T10:15:00Z",
		`"2016-11-15t10:15:00z"`:                    "2016-11-15T10:15:00Z",
		`"2016-11-15T10:15Z"`:                       "2016-11-15T10:15:00Z",
		`"2016-11-15 10:15:00"`:                     "2016-11-15T10:15:00Z",
		`"2016-11-15T10:15:00.1234567891234Z"`:      "2016-11-15T10:15:00.123456789Z",
		`"2016-11-15T10:15:00,5Z"`:                  "2016-11-15T10:15:00.5Z",
		`"2016-11-15T10:15:00+05:30"`:               "2016-11-15T04:45:00Z",
		`"2016-11-15T10:15:00-0500"`:                "2016-11-15T15:15:00Z",
		`"2016-11-15T23:15:00-05"`:                  "2016-11-16T04:15:00Z",
		`"2016-11-15T10:15:00\u002b01:00"`:          "2016-11-15T09:15:00Z",
		`"2016-02-29T00:00:00Z"`:                    "2016-02-29T00:00:00Z",
		`"2016-12-31T23:59:60Z"`:                    "2017-01-01T00:00:00Z",
		`1479204900000`:                             "2016-11-15T10:15:00Z",
		`1479204900123.5`:                           "2016-11-15T10:15:00.1235Z",
		`1.4792049e12`:                              "2016-11-15T10:15:00Z",
		`{"$date":"2016-11-15T10:15:00Z"}`:          "2016-11-15T10:15:00Z",
		`{"$date":1479204900000}`:                   "2016-11-15T10:15:00Z",
		`{"$date":{"$numberLong":"1479204900000"}}`: "2016-11-15T10:15:00Z",
		`{"iso":"2016-11-15T10:15:00Z","tz":"x"}`:   "2016-11-15T10:15:00Z",
		`{"value":"2016-11-15T10:15:00Z"}`:          "2016-11-15T10:15:00Z",
		`{"millis":1479204900000,"chronology":{}}`:  "2016-11-15T10:15:00Z",
		`{"epochSecond":1479204900,"nano":5000}`:    "2016-11-15T10:15:00.000005Z",
		`{"date":"2016-11-15 10:15:00.000000","timezone_type":3,"timezone":"UTC"}`:    "2016-11-15T10:15:00Z",
		`{"date":"2016-11-15 10:15:00.000000","timezone_type":1,"timezone":"-05:00"}`: "2016-11-15T15:15:00Z",
	} {
		got, err := caliper.ParseTime(value(t, doc))
		require.NoError(t, err, doc)
		require.Equal(t, want, got.Format(time.RFC3339Nano), doc)
		require.Equal(t, time.UTC, got.Location())
	}
}

func TestParseTimeRefuses(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]string{
		`""`:                          `"" is not an ISO 8601 time: expected a date like 2016-11-15`,
		`"yesterday, around noon"`:    `"yesterday, around noon" is not an ISO 8601 time: expected a date like 2016-11-15`,
		`"2016-11-15"`:                `"2016-11-15" is not an ISO 8601 time: it has no time of day`,
		`"2015-02-29T10:15:00Z"`:      `"2015-02-29T10:15:00Z" is not an ISO 8601 time: there is no such day`,
		`"2016-13-01T10:15:00Z"`:      `"2016-13-01T10:15:00Z" is not an ISO 8601 time: there is no such day`,
		`"2016-11-15X10:15:00Z"`:      `"2016-11-15X10:15:00Z" is not an ISO 8601 time: expected T between the date and the time of day`,
		`"2016-11-15T24:00:00Z"`:      `"2016-11-15T24:00:00Z" is not an ISO 8601 time: there is no such time of day`,
		`"2016-11-15T10:1"`:           `"2016-11-15T10:1" is not an ISO 8601 time: expected a time of day like 10:15:00`,
		`"2016-11-15T10:15:00.Z"`:     `"2016-11-15T10:15:00.Z" is not an ISO 8601 time: expected digits after the decimal point`,
		`"2016-11-15T10:15:00 CET"`:   `"2016-11-15T10:15:00 CET" is not an ISO 8601 time: expected Z or an offset like +01:00 at its end`,
		`"2016-11-15T10:15:00+99:00"`: `"2016-11-15T10:15:00+99:00" is not an ISO 8601 time: there is no such offset`,
		`"2016-11-15T10:15:00+1"`:     `"2016-11-15T10:15:00+1" is not an ISO 8601 time: there is no such offset`,
		`"2016-11-15T10:15:00Z!"`:     `"2016-11-15T10:15:00Z!" is not an ISO 8601 time: there is more after its end`,
		`1479204900`:                  `1479204900 is no number of milliseconds since 1970`,
		`-1`:                          `-1 is no number of milliseconds since 1970`,
		`1e300`:                       `1e300 is no number of milliseconds since 1970`,
		`1e999`:                       `number 1e999 is out of range`,
		`true`:                        `a boolean is not a time`,
		`null`:                        `null is not a time`,
		`["2016-11-15T10:15:00Z"]`:    `an array is not a time`,
		`{}`:                          `it is an object without a member that is known to hold a time`,
		`{"$date":{"iso":{"value":"2016-11-15T10:15:00Z"}}}`:           `an object is not a time`,
		`{"epochSecond":"x"}`:                                          `its epochSecond is no number of seconds since 1970`,
		`{"epochSecond":1,"nano":1e9}`:                                 `its nano is no number of nanoseconds`,
		`{"$date":{"$numberLong":"abc"}}`:                              `its $numberLong is no number in a string`,
		`{"date":"2016-11-15 10:15:00","timezone":"America/New_York"}`: `its timezone is "America/New_York"; only UTC and offsets are known here`,
		`{"date":5,"timezone":"UTC"}`:                                  `its date is a number, not a string`,
	} {
		_, err := caliper.ParseTime(value(t, doc))
		require.EqualError(t, err, want, doc)
	}
	_, err := caliper.ParseTime(record.Value{})
	require.EqualError(t, err, "no value is not a time")
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]time.Duration{
		`"PT3000S"`:    3000 * time.Second,
		`"PT50M12S"`:   50*time.Minute + 12*time.Second,
		`"PT05M21S"`:   5*time.Minute + 21*time.Second,
		`"PT1H17M50S"`: 77*time.Minute + 50*time.Second,
		`"P1DT2H"`:     26 * time.Hour,
		`"P2W"`:        14 * 24 * time.Hour,
		`"P1W1D"`:      8 * 24 * time.Hour,
		`"PT0S"`:       0,
		`"PT1.5S"`:     1500 * time.Millisecond,
		`"PT0,25H"`:    15 * time.Minute,
		`"PT90M"`:      90 * time.Minute,
		`710`:          710 * time.Second,
		`0.25`:         250 * time.Millisecond,
		`"\u0050T1S"`:  time.Second,
	} {
		got, err := caliper.ParseDuration(value(t, doc))
		require.NoError(t, err, doc)
		require.Equal(t, want, got, doc)
	}
	for doc, want := range map[string]string{
		`""`:           `"" is not an ISO 8601 duration: expected something like PT50M12S`,
		`"3000"`:       `"3000" is not an ISO 8601 duration: expected something like PT50M12S`,
		`"-PT1S"`:      `"-PT1S" is not an ISO 8601 duration: expected something like PT50M12S`,
		`"P"`:          `"P" is not an ISO 8601 duration: it has no parts`,
		`"PT"`:         `"PT" is not an ISO 8601 duration: there is nothing after T`,
		`"P1DT"`:       `"P1DT" is not an ISO 8601 duration: there is nothing after T`,
		`"P1Y"`:        `"P1Y" is not an ISO 8601 duration: years and months have no fixed length`,
		`"P2M"`:        `"P2M" is not an ISO 8601 duration: years and months have no fixed length`,
		`"PT5"`:        `"PT5" is not an ISO 8601 duration: the last number has no unit`,
		`"PT5S3M"`:     `"PT5S3M" is not an ISO 8601 duration: 'M' is no unit, or not in its place`,
		`"P5S"`:        `"P5S" is not an ISO 8601 duration: 'S' is no unit, or not in its place`,
		`"PT5STT"`:     `"PT5STT" is not an ISO 8601 duration: 'T' is no unit, or not in its place`,
		`"PTS"`:        `"PTS" is not an ISO 8601 duration: expected a number before 'S'`,
		`"PT1.2.3S"`:   `"PT1.2.3S" is not an ISO 8601 duration: expected a number before 'S'`,
		`"PT1.5M3S"`:   `"PT1.5M3S" is not an ISO 8601 duration: only the last part may have a fraction`,
		`"P99999999W"`: `"P99999999W" is not an ISO 8601 duration: it is beyond 292 years`,
		`-5`:           `-5 is no number of seconds`,
		`1e300`:        `1e300 is no number of seconds`,
		`{}`:           `an object is not a duration`,
	} {
		_, err := caliper.ParseDuration(value(t, doc))
		require.EqualError(t, err, want, doc)
	}
}

func FuzzParseTime(f *testing.F) {
	for _, seed := range []string{"2016-11-15T10:15:00.000Z", "2016-11-15T10:15:00+05:30", "PT50M12S", "P1DT2H", "2016-02-29 00:00", "PT0.5S", "0000-01-01T0:00:00+00:00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		doc, err := json.Marshal(text)
		require.NoError(t, err)
		v := value(t, string(doc))
		got, err := caliper.ParseTime(v)
		want, rfc := time.Parse(time.RFC3339Nano, text)
		_, offset := want.Zone()
		strict := rfc == nil && text[13] == ':' // time.Parse takes hours of one digit, RFC 3339 does not
		if strict && offset >= -18*3600 && offset <= 18*3600 {
			require.NoError(t, err)
			require.True(t, want.Equal(got), "%s: %s", text, got)
		}
		if d, err := caliper.ParseDuration(v); err == nil {
			require.GreaterOrEqual(t, d, time.Duration(0), text)
		}
	})
}
