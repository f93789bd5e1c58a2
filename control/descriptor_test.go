package control_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/control"
)

// The talk's descriptor, as it is printed there.
func TestDescriptorOfTheTalk(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../apps/lms/descriptor.json")
	require.NoError(t, err)
	d, err := control.ParseDescriptor("descriptor.json", text)
	require.NoError(t, err)
	require.Equal(t, control.Descriptor{
		Type: "datastream-app", Description: "ETL job for edgenuity-lms data sources", Multitenant: true, Versioned: true, SeedingEnabled: true,
		SeedingType: "datasource_type", EnabledSeedingTargets: []string{"edgenuity_lms"},
	}, d)
	require.True(t, d.SeedsFrom("EDGENUITY_LMS"))
	require.False(t, d.SeedsFrom("SIS"))
}

func TestBadDescriptors(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		``:                                     "d.json:1:1: it ends in the middle of the object",
		`[]`:                                   `d.json:1:1: a descriptor is an object: { "type": "datastream-app", … }`,
		"{\n  \"type\": \"datastream-app\",\n": "d.json:3:1: it ends in the middle of the object",
		"{\n  \"type\" \"datastream-app\"}":    `d.json:2:9: expected colon after object key`,
		"{\n  \"type\": \"datastream-app\",\n  \"seedingEnable\": true\n}": `d.json:3:3: there is no field "seedingEnable"; did you mean "seedingEnabled"? the fields are type, description, multitenant, versioned, seedingEnabled, seedingType, enabledSeedingTargets`,
		"{\"Versionned\": true}":                   `d.json:1:2: there is no field "Versionned"; did you mean "versioned"?`,
		"{\n  \"versioned\": \"yes\"}":             `d.json:2:16: field "versioned" is "yes"; want true or false`,
		`{"description": null}`:                    `d.json:1:17: field "description" is null; want a text in quotes`,
		`{"enabledSeedingTargets": "lms"}`:         `d.json:1:27: field "enabledSeedingTargets" is "lms"; want a list of texts in quotes`,
		`{"versioned": true, "versioned": false}`:  `d.json:1:21: field "versioned" is there twice; leave one out`,
		`{"type":"datastream-app"} {}`:             "d.json:1:27: something comes after the object",
		`{"description": "x"}`:                     `d.json: type is ""; the type that there is is "datastream-app"`,
		`{"type":"batch-app", "description": "x"}`: `d.json: type is "batch-app"`,
		`{"type":"datastream-app"}`:                "d.json: description is missing",
		`{"type":"datastream-app","description":"x","seedingType":"datasource_type"}`:                                                                               "are for an app with seedingEnabled",
		`{"type":"datastream-app","description":"x","seedingEnabled":true}`:                                                                                         "a singleton has one instance",
		`{"type":"datastream-app","description":"x","versioned":true,"seedingEnabled":true,"seedingType":"topic"}`:                                                  `seedingType is "topic"`,
		`{"type":"datastream-app","description":"x","versioned":true,"seedingEnabled":true,"seedingType":"datasource_type"}`:                                        "enabledSeedingTargets is empty",
		`{"type":"datastream-app","description":"x","versioned":true,"seedingEnabled":true,"seedingType":"datasource_type","enabledSeedingTargets":["a b"]}`:        `"a b", which is no source type`,
		`{"type":"datastream-app","description":"x","versioned":true,"seedingEnabled":true,"seedingType":"datasource_type","enabledSeedingTargets":["lms", "LMS"]}`: `has "LMS" twice`,
	} {
		_, err := control.ParseDescriptor("d.json", []byte(text))
		require.ErrorContains(t, err, says, text)
	}
}

func FuzzParseDescriptor(f *testing.F) {
	f.Add([]byte(`{"type":"datastream-app","description":"x","versioned":true,"seedingEnabled":true,"seedingType":"datasource_type","enabledSeedingTargets":["lms"]}`))
	f.Add([]byte("{\n\"a\": [1, {}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := control.ParseDescriptor("d", text)
		if err == nil {
			require.Equal(t, control.DataStreamApp, d.Type)
		}
	})
}
