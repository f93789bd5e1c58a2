package caliper_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/caliper"
	"millrace/record"
)

// shared returns the folder of the official fixtures and the captured requests, or skips the test.
func shared(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("MILLRACE_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared")
	}
	dir = filepath.Join(dir, "caliper")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the official Caliper fixtures are not here: %v", err)
	}
	return dir
}

func TestOfficialFixtures(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(shared(t), "fixtures")
	for folder, want := range map[string]struct {
		version, dataVersion string
		files                int
	}{
		"v1p0": {caliper.Version10, "", 17},
		"v1p1": {caliper.Version11, "http://purl.imsglobal.org/ctx/caliper/v1p1", 125},
	} {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			files, err := filepath.Glob(filepath.Join(dir, folder, "*.json"))
			require.NoError(t, err)
			require.Len(t, files, want.files)
			for _, file := range files {
				checkFixture(t, file, want.version, want.dataVersion)
			}
		})
	}
}

func checkFixture(t *testing.T, file, version, dataVersion string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	raw = bytes.TrimSpace(raw)
	body := raw
	var members map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(raw, &members))
	bare := members["data"] == nil
	if bare {
		body = wrap(dataVersion, string(raw))
	}
	envelope, err := caliper.ReadEnvelope(body)
	require.NoError(t, err, file)
	require.NotEmpty(t, envelope.Sensor)
	require.False(t, envelope.SendTime.IsZero())
	require.Equal(t, dataVersion, envelope.DataVersion, file)
	for _, item := range envelope.Items {
		require.NoError(t, item.Err, file)
		require.Equal(t, version, item.Head.Version, file)
		var decoded map[string]any
		require.NoError(t, json.Unmarshal(item.Raw, &decoded))
		require.Equal(t, strings.HasSuffix(item.Head.Type, "Event"), item.Head.Kind == record.Event, file)
		require.Equal(t, decoded["eventTime"] != nil, item.Head.Kind == record.Event, file)
		require.Equal(t, item.Head.Kind == record.Event, item.Head.Action != "", file)
		require.NotContains(t, item.Head.Type, "/", file)
		require.NotContains(t, item.Head.Action, "/", file)
	}
	if bare {
		require.Len(t, envelope.Items, 1)
		require.Equal(t, string(raw), string(envelope.Items[0].Raw))
	}
}

func TestCapturedRequests(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(shared(t), "sensor-captures", "*", "*.body.json"))
	require.NoError(t, err)
	require.Len(t, files, 5)
	for _, file := range files {
		body, err := os.ReadFile(file)
		require.NoError(t, err)
		envelope, err := caliper.ReadEnvelope(body)
		require.NoError(t, err, file)
		var decoded struct{ Data []json.RawMessage }
		require.NoError(t, json.Unmarshal(body, &decoded))
		require.Len(t, envelope.Items, len(decoded.Data), file)
		for i, item := range envelope.Items {
			require.NoError(t, item.Err, file)
			require.Equal(t, string(decoded.Data[i]), string(item.Raw))
			require.Equal(t, caliper.Version11, item.Head.Version)
			require.NotEmpty(t, item.Head.ID)
		}
	}
}

// wrap makes an envelope of the items, without a dataVersion when that is empty.
func wrap(dataVersion string, items ...string) []byte {
	version := ""
	if dataVersion != "" {
		version = `"dataVersion":"` + dataVersion + `",`
	}
	return []byte(`{"sensor":"https://example.org/sensor/1","sendTime":"2026-11-15T10:15:01.000Z",` + version +
		`"data":[` + strings.Join(items, ",") + `]}`)
}
