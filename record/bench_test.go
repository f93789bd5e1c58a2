package record_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/record"
)

// outcome builds an OutcomeEvent of about 1.4 kB, shaped like one that a 1.0 sensor sends.
func outcome(tb testing.TB) []byte {
	tb.Helper()
	const context = "http://purl.imsglobal.org/ctx/caliper/v1/Context"
	type object = map[string]any
	event := object{
		"@context": context,
		"@type":    "http://purl.imsglobal.org/caliper/v1/OutcomeEvent",
		"actor":    object{"@id": "https://district.example/users/554433", "@type": "http://purl.imsglobal.org/caliper/v1/lis/Person", "name": nil},
		"action":   "http://purl.imsglobal.org/vocab/caliper/v1/action#Graded",
		"object": object{
			"@id":         "https://district.example/terms/2026/courses/7/sections/1/assign/2/attempts/5678",
			"@type":       "http://purl.imsglobal.org/caliper/v1/Attempt",
			"assignable":  object{"@id": "https://district.example/terms/2026/courses/7/sections/1/assign/2"},
			"actor":       "https://district.example/users/554433",
			"count":       1,
			"dateCreated": "2026-09-15T10:15:00.000Z",
			"extensions":  object{},
		},
		"generated": object{
			"@id":         "https://district.example/terms/2026/courses/7/sections/1/assign/2/attempts/5678/result",
			"@type":       "http://purl.imsglobal.org/caliper/v1/Result",
			"actor":       object{"@id": "https://district.example/users/554433"},
			"totalScore":  92.4,
			"normalScore": 92.4,
			"comment":     "Well done.",
			"extensions":  object{"com.example.lms": object{"attempt": 3, "late": false}},
		},
		"eventTime": "2026-09-15T10:16:30.250Z",
		"edApp":     object{"@id": "https://lms.example", "@type": "http://purl.imsglobal.org/caliper/v1/SoftwareApplication"},
		"group": object{
			"@id": "https://district.example/terms/2026/courses/7/sections/1", "@type": "http://purl.imsglobal.org/caliper/v1/lis/CourseSection",
			"subOrganizationOf": object{"@id": "https://district.example/terms/2026/courses/7"},
		},
		"membership": object{"member": "https://district.example/users/554433", "roles": []string{"http://purl.imsglobal.org/vocab/lis/v2/membership#Learner"}},
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	require.NoError(tb, encoder.Encode(event))
	doc := bytes.TrimSpace(b.Bytes())
	require.InDelta(tb, 1400, len(doc), 250)
	return doc
}

var outcomePaths = []string{
	"type", "id", "eventTime", "action", "actor.id", "object.id", "object.type", "object.assignable.id", "object.count",
	"generated.id", "generated.actor.id", "generated.totalScore", "generated.normalScore", "generated.comment",
	`generated.extensions."com.example.lms".attempt`, "group.id", "group.subOrganizationOf.id", "membership.roles.0",
	"membership.member.id", "edApp.id",
}

func BenchmarkValidate(b *testing.B) {
	doc := outcome(b)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if err := record.Validate(doc); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	doc := outcome(b)
	paths, err := record.Compile(outcomePaths...)
	require.NoError(b, err)
	out := make([]record.Value, paths.Len())
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if err := paths.Scan(doc, out); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFingerprint(b *testing.B) {
	doc := outcome(b)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := record.Fingerprint(doc); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScanFingerprint(b *testing.B) {
	doc := outcome(b)
	paths, err := record.Compile(outcomePaths...)
	require.NoError(b, err)
	out := make([]record.Value, paths.Len())
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := paths.ScanFingerprint(doc, out); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValidEncodingJSON(b *testing.B) {
	doc := outcome(b)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if !json.Valid(doc) {
			b.Fatal("invalid")
		}
	}
}

func BenchmarkUnmarshalEncodingJSON(b *testing.B) {
	doc := outcome(b)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		var v map[string]any
		if err := json.Unmarshal(doc, &v); err != nil {
			b.Fatal(err)
		}
	}
}
