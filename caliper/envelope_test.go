package caliper_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/caliper"
	"millrace/record"
)

const (
	v1p1 = "http://purl.imsglobal.org/ctx/caliper/v1p1"
	good = `{"id":"urn:uuid:1","type":"ViewEvent","action":"Viewed","eventTime":"2026-11-15T10:15:00.000Z"}`
)

func TestReadEnvelope(t *testing.T) {
	t.Parallel()
	person := ` {"type" : "Person", "id" : "https://example.org/users/1"} `
	body := wrap(v1p1, good, person, good)
	envelope, err := caliper.ReadEnvelope(body)
	require.NoError(t, err)
	require.Equal(t, "https://example.org/sensor/1", envelope.Sensor)
	require.Equal(t, at(t, "2026-11-15T10:15:01Z"), envelope.SendTime)
	require.Equal(t, v1p1, envelope.DataVersion)
	require.Len(t, envelope.Items, 3)
	require.Equal(t, good, string(envelope.Items[0].Raw))
	require.Equal(t, strings.TrimSpace(person), string(envelope.Items[1].Raw))
	require.Equal(t, caliper.Head{
		Kind: record.Event, Version: caliper.Version11, Type: caliper.ViewEvent, ID: "urn:uuid:1", Action: caliper.Viewed,
		EventTime: at(t, "2026-11-15T10:15:00Z"),
	}, envelope.Items[0].Head)
	require.Equal(t, record.Entity, envelope.Items[1].Head.Kind)
	require.Equal(t, caliper.Version11, envelope.Items[1].Head.Version, "the envelope's, when the item does not tell")
	for _, item := range envelope.Items {
		require.NoError(t, item.Err)
	}

	body[strings.Index(string(body), "urn:uuid:1")] = 'X'
	require.Contains(t, string(envelope.Items[0].Raw), "Xrn:uuid:1", "items share the body's memory")
	_ = append(envelope.Items[0].Raw, '!')
	require.True(t, json.Valid(body), "appending to an item must not write into the body")
}

func TestReadEnvelopeVersions(t *testing.T) {
	t.Parallel()
	for _, dataVersion := range append(
		caliper.SupportedVersions(), "", "https://purl.imsglobal.org/ctx/caliper/v1p2", "http://purl.imsglobal.org/ctx/caliper/v1p1/ToolUseProfile-extension",
	) {
		envelope, err := caliper.ReadEnvelope(wrap(dataVersion, good))
		require.NoError(t, err, dataVersion)
		require.Equal(t, dataVersion, envelope.DataVersion)
	}
	for _, dataVersion := range []string{"http://purl.imsglobal.org/ctx/caliper/v2p0", "1.1", "http://vendor.example/ctx/caliper/v1p1", v1p1 + "x"} {
		_, err := caliper.ReadEnvelope(wrap(dataVersion, good))
		require.ErrorIs(t, err, caliper.ErrUnsupportedVersion)
		require.NotErrorIs(t, err, caliper.ErrMalformed)
		require.ErrorContains(t, err, dataVersion)
		require.ErrorContains(t, err, v1p1)
	}
	envelope, err := caliper.ReadEnvelope([]byte(`{"sensor":"s","sendTime":1479204900000,"dataVersion":null,"data":` + good + `}`))
	require.NoError(t, err, "data may be one object, sendTime a number, dataVersion null")
	require.Len(t, envelope.Items, 1)
	require.Equal(t, good, string(envelope.Items[0].Raw))
}

func TestReadEnvelopeRefuses(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		``:            "not a Caliper envelope: invalid JSON at byte 0: it ends too early",
		`{"sensor":"`: "not a Caliper envelope: invalid JSON at byte 11: it ends too early",
		`[]`:          "not a Caliper envelope: it is not an object",
		`"x"`:         "not a Caliper envelope: it is not an object",
		good:          "not a Caliper envelope: it has no data",
		`{"sensor":"s","sendTime":"2026-11-15T10:15:00Z","data":null}`:                                           "not a Caliper envelope: it has no data",
		`{"sensor":"s","sendTime":"2026-11-15T10:15:00Z","data":"x"}`:                                            "not a Caliper envelope: its data is a string, not an array",
		`{"sensor":"s","sendTime":"2026-11-15T10:15:00Z","data":[ ]}`:                                            "not a Caliper envelope: its data is empty",
		`{"sendTime":"2026-11-15T10:15:00Z","data":[{}]}`:                                                        "not a Caliper envelope: sensor: it is missing",
		`{"sensor":"","sendTime":"2026-11-15T10:15:00Z","data":[{}]}`:                                            "not a Caliper envelope: sensor: it is missing",
		`{"sensor":{"id":"s"},"data":[{}]}`:                                                                      "not a Caliper envelope: sensor: it is an object, not a string; sendTime: it is missing",
		`{"sensor":"s","sendTime":"today","data":[{}]}`:                                                          `not a Caliper envelope: sendTime: "today" is not an ISO 8601 time: expected a date like 2016-11-15`,
		`{"sensor":"s","sendTime":"2026-11-15T10:15:00Z","dataVersion":1,"data":[{}]}`:                           "not a Caliper envelope: dataVersion: it is a number, not a string",
		`{"sensor":"s","sendTime":"2026-11-15T10:15:00Z","data":[` + good + `,{"type":}]}`:                       "not a Caliper envelope: invalid JSON at byte 160: expected a value",
		"{\"sensor\":\"a\tb\",\"sendTime\":\"2026-11-15T10:15:00Z\",\"data\":[" + good + "]}":                    "not a Caliper envelope: invalid JSON at byte 12: control character 0x09 in a string",
		"{\"sensor\":\"s\",\"sendTime\":\"2026-11-15T10:15:00Z\",\"data\":[{\"a\":\"\xff\"}],\"more\":\"\xfe\"}": "not a Caliper envelope: invalid JSON at byte 75: invalid UTF-8 in a string",
		"{\"sensor\":\"s\",\"sendTime\":\"2026-11-15T10:15:00Z\",\"data\":[{\"a\":\"\xff\"},{\"b\":]}":           "not a Caliper envelope: invalid JSON at byte 62: invalid UTF-8 in a string",
	} {
		envelope, err := caliper.ReadEnvelope([]byte(body))
		require.EqualError(t, err, want, body)
		require.ErrorIs(t, err, caliper.ErrMalformed)
		require.Nil(t, envelope)
	}
	_, err := caliper.ReadEnvelope([]byte(`{"sensor":"`))
	var syntax *record.SyntaxError
	require.ErrorAs(t, err, &syntax)
	require.Equal(t, 11, syntax.Offset)
}

// One bad item never refuses the others, whatever is wrong with it, as long as it is clear where it ends.
func TestBadItemAmongGoodOnes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ bad, want string }{
		"a control character":        {"{\"type\":\"Person\",\"name\":\"a\tb\"}", "invalid JSON at byte 26: control character 0x09 in a string"},
		"many of them":               {"{\"type\":\"Per\nson\",\"name\":\"\x00\x1f\"}", "invalid JSON at byte 12: control character 0x0a in a string"},
		"a control character in key": {"{\"ty\x01pe\":\"Person\"}", "invalid JSON at byte 4: control character 0x01 in a string"},
		"invalid UTF-8":              {"{\"type\":\"Person\",\"name\":\"\xc3\x28 caf\xe9\"}", "invalid JSON at byte 25: invalid UTF-8 in a string"},
		"UTF-8 cut at the quote":     {"{\"type\":\"Person\",\"name\":\"\xe2\x82\"}", "invalid JSON at byte 25: invalid UTF-8 in a string"},
		"an invalid escape":          {`{"type":"Person","path":"C:\users\x"}`, "invalid JSON at byte 27: invalid escape in a string"},
		"an invalid escape at end":   {`{"type":"Person","path":"\u12"}`, "invalid JSON at byte 25: invalid escape in a string"},
		"a bare string":              {`"https://example.org/users/1"`, "item: it is not an object, so neither an event nor an entity"},
		"a bare string with a fault": {"\"a\tb\"", "invalid JSON at byte 2: control character 0x09 in a string"},
		"null":                       {`null`, "item: it is not an object, so neither an event nor an entity"},
		"an array":                   {`[` + good + `]`, "item: it is not an object, so neither an event nor an entity"},
		"no type":                    {`{"id":"x"}`, "type: it is missing"},
		"a time that is none":        {`{"type":"Event","eventTime":"soon"}`, `eventTime: "soon" is not an ISO 8601 time: expected a date like 2016-11-15`},
		"too deep": {
			`{"type":"Person","x":` + strings.Repeat("[", 128) + `"]}"` + strings.Repeat("]", 128) + `}`,
			"invalid JSON at byte 148: nested deeper than 128",
		},
		"too deep, of objects": {
			`{"type":"Person","x":` + strings.Repeat(`{"]":`, 300) + "1" + strings.Repeat("}", 300) + `}`,
			"invalid JSON at byte 656: nested deeper than 128",
		},
	} {
		for place := range 3 {
			items := []string{good, good, good}
			items[place] = c.bad
			body := wrap(v1p1, items...)
			before := string(body)
			envelope, err := caliper.ReadEnvelope(body)
			require.NoError(t, err, name)
			require.Equal(t, before, string(body), "the body stays as it is")
			require.Len(t, envelope.Items, 3, name)
			for i, item := range envelope.Items {
				require.Equal(t, items[i], string(item.Raw), name)
				if i == place {
					require.EqualError(t, item.Err, c.want, name)
				} else {
					require.NoError(t, item.Err, name)
					require.Equal(t, "urn:uuid:1", item.Head.ID)
				}
			}
		}
	}
}

func TestSeveralBadItems(t *testing.T) {
	t.Parallel()
	bad := "{\"type\":\"Person\",\"name\":\"%s\"}"
	envelope, err := caliper.ReadEnvelope(wrap("", fmt.Sprintf(bad, "\t"), good, fmt.Sprintf(bad, "\xff"), fmt.Sprintf(bad, "fine")))
	require.NoError(t, err)
	var failed []bool
	for _, item := range envelope.Items {
		failed = append(failed, item.Err != nil)
	}
	require.Equal(t, []bool{true, false, true, false}, failed)
}

// What nests too deep only because an envelope is around it is a good item.
func TestItemAtTheDepthLimit(t *testing.T) {
	t.Parallel()
	deep := `{"type":"Person","x":` + strings.Repeat("[", 127) + strings.Repeat("]", 127) + `}`
	require.NoError(t, record.Validate([]byte(deep)))
	envelope, err := caliper.ReadEnvelope(wrap(v1p1, deep, good))
	require.NoError(t, err)
	require.NoError(t, envelope.Items[0].Err)
	require.Equal(t, deep, string(envelope.Items[0].Raw))
	require.NoError(t, envelope.Items[1].Err)
}

func FuzzReadEnvelope(f *testing.F) {
	for _, seed := range []string{
		string(wrap(v1p1, good, `{"type":"Person"}`)), string(wrap("", "{\"a\":\"\t\"}", good)), string(wrap("", `{"a":"\q"}`, `"x"`, `null`)),
		`{"sensor":"s","sendTime":1479204900000,"data":{"type":"Event"}}`, `{"data":[1],"data":[{}],"sensor":"s","sendTime":"2026-11-15T10:15:00Z"}`,
		"{\"sensor\":\"s\",\"sendTime\":\"2026-11-15T10:15:00Z\",\"data\":[{\"a\":\"\xff\"}]}", strings.Repeat("[", 200),
		string(wrap("", strings.Repeat("[", 130)+strings.Repeat("]", 130), good)),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := string(body)
		envelope, err := caliper.ReadEnvelope(body)
		require.Equal(t, before, string(body))
		if err != nil {
			require.Nil(t, envelope)
			require.NotEmpty(t, err.Error())
			return
		}
		var items []string
		end := 0
		for _, item := range envelope.Items {
			from := record.Value{Raw: item.Raw}.Offset(body)
			require.GreaterOrEqual(t, from, end, "items lie in the body one behind the other")
			end = from + len(item.Raw)
			require.Equal(t, before[from:end], string(item.Raw))
			if item.Err == nil {
				require.NoError(t, record.Validate(item.Raw))
				require.NotEmpty(t, item.Head.Type)
				require.Contains(t, []record.Kind{record.Event, record.Entity}, item.Head.Kind)
			}
			items = append(items, string(item.Raw))
		}
		// Put together anew they read the same.
		dataVersion, err := json.Marshal(envelope.DataVersion)
		require.NoError(t, err)
		again, err := caliper.ReadEnvelope(wrap(strings.Trim(string(dataVersion), `"`), items...))
		require.NoError(t, err)
		require.Len(t, again.Items, len(items))
		for i, item := range again.Items {
			require.Equal(t, items[i], string(item.Raw))
			require.Equal(t, envelope.Items[i].Head, item.Head)
			require.Equal(t, envelope.Items[i].Err, item.Err)
		}
	})
}

func BenchmarkReadEnvelope(b *testing.B) {
	items := make([]string, 20)
	for i := range items {
		items[i] = good
	}
	body := wrap(v1p1, items...)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := caliper.ReadEnvelope(body); err != nil {
			b.Fatal(err)
		}
	}
}
