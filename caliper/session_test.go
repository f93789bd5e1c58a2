package caliper_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/caliper"
	"millrace/record"
)

func TestReadSession(t *testing.T) {
	t.Parallel()
	started, ended := at(t, "2016-11-15T10:00:00Z"), at(t, "2016-11-15T11:00:00Z")
	for name, c := range map[string]struct {
		event string
		want  caliper.SessionRef
	}{
		"logged in, 1.1": {
			`{"type":"SessionEvent","action":"LoggedIn","actor":{"id":"u","type":"Person"},"object":{"id":"app","type":"SoftwareApplication"},
			  "session":{"id":"s","type":"Session","user":"u","startedAtTime":"2016-11-15T10:00:00Z"}}`,
			caliper.SessionRef{User: "u", Session: "s", Application: "app", StartedAt: started},
		},
		"logged out, 1.1, its end told by its duration": {
			`{"type":"SessionEvent","action":"LoggedOut","actor":"u","object":"app",
			  "session":{"id":"s","type":"Session","startedAtTime":"2016-11-15T10:00:00Z","duration":"PT3600S"}}`,
			caliper.SessionRef{User: "u", Session: "s", Application: "app", StartedAt: started, EndedAt: ended},
		},
		"an explicit end beats the duration": {
			`{"type":"SessionEvent","action":"LoggedOut","actor":"u","object":"app",
			  "session":{"id":"s","startedAtTime":"2016-11-15T10:00:00Z","endedAtTime":"2016-11-15T11:00:00Z","duration":"PT1S"}}`,
			caliper.SessionRef{User: "u", Session: "s", Application: "app", StartedAt: started, EndedAt: ended},
		},
		"timed out, 1.1": {
			`{"type":"SessionEvent","action":"TimedOut","actor":{"id":"app","type":"SoftwareApplication"},
			  "object":{"id":"s","type":"Session","user":{"id":"u","type":"Person"},"startedAtTime":"2016-11-15T10:00:00Z","endedAtTime":"2016-11-15T11:00:00Z"}}`,
			caliper.SessionRef{User: "u", Session: "s", Application: "app", StartedAt: started, EndedAt: ended},
		},
		"timed out, 1.1, the user a bare IRI": {
			`{"type":"SessionEvent","action":"TimedOut","actor":{"id":"app","type":"SoftwareApplication"},"object":{"id":"s","type":"Session","user":"u"}}`,
			caliper.SessionRef{User: "u", Session: "s", Application: "app"},
		},
		"timed out, everything a bare IRI": {
			`{"type":"SessionEvent","action":"TimedOut","actor":"app","object":"s"}`,
			caliper.SessionRef{Session: "s", Application: "app"},
		},
		"timed out, LTI": {
			`{"type":"SessionEvent","action":"TimedOut","actor":{"id":"app","type":"SoftwareApplication"},"object":{"id":"s","type":"LtiSession","user":"u"}}`,
			caliper.SessionRef{User: "u", Session: "s", Application: "app"},
		},
		"timed out, told of the person": {
			`{"type":"SessionEvent","action":"TimedOut","actor":{"id":"u","type":"Person"},"object":{"id":"s","type":"Session"},"edApp":"app"}`,
			caliper.SessionRef{User: "u", Session: "s", Application: "app"},
		},
		"logged in, 1.0": {
			`{"@type":"http://purl.imsglobal.org/caliper/v1/SessionEvent","action":"http://purl.imsglobal.org/vocab/caliper/v1/action#LoggedIn",
			  "actor":{"@id":"u","@type":"http://purl.imsglobal.org/caliper/v1/lis/Person"},
			  "object":{"@id":"app","@type":"http://purl.imsglobal.org/caliper/v1/SoftwareApplication"},
			  "target":{"@id":"page","@type":"http://purl.imsglobal.org/caliper/v1/Frame"},
			  "generated":{"@id":"s","@type":"http://purl.imsglobal.org/caliper/v1/Session","actor":"u","startedAtTime":"2016-11-15T10:00:00Z","endedAtTime":null,"duration":null}}`,
			caliper.SessionRef{User: "u", Session: "s", Application: "app", StartedAt: started},
		},
		"logged out, 1.0": {
			`{"@type":"http://purl.imsglobal.org/caliper/v1/SessionEvent","action":"http://purl.imsglobal.org/vocab/caliper/v1/action#LoggedOut",
			  "actor":{"@id":"u","@type":"http://purl.imsglobal.org/caliper/v1/lis/Person"},"generated":null,
			  "object":{"@id":"app","@type":"http://purl.imsglobal.org/caliper/v1/SoftwareApplication"},
			  "target":{"@id":"s","@type":"http://purl.imsglobal.org/caliper/v1/Session"}}`,
			caliper.SessionRef{User: "u", Session: "s", Application: "app"},
		},
		"timed out, 1.0": {
			`{"@type":"http://purl.imsglobal.org/caliper/v1/SessionEvent","action":"http://purl.imsglobal.org/vocab/caliper/v1/action#TimedOut",
			  "actor":{"@id":"app","@type":"http://purl.imsglobal.org/caliper/v1/SoftwareApplication"},
			  "object":{"@id":"s","@type":"http://purl.imsglobal.org/caliper/v1/Session","actor":{"@id":"u"}}}`,
			caliper.SessionRef{User: "u", Session: "s", Application: "app"},
		},
		"nothing told": {`{"type":"SessionEvent","action":"LoggedIn"}`, caliper.SessionRef{}},
	} {
		got, err := caliper.ReadSession([]byte(c.event))
		require.NoError(t, err, name)
		require.Equal(t, c.want, got, name)
	}
}

func TestReadSessionNamesItsProblems(t *testing.T) {
	t.Parallel()
	got, err := caliper.ReadSession([]byte(`{"action":"LoggedOut","actor":"u","object":"app","edApp":7,"session":{"id":5,"startedAtTime":"2016-11-15T10:00:00Z","duration":"P1Y"}}`))
	require.EqualError(t, err, `session: it is a number, not a string; duration: "P1Y" is not an ISO 8601 duration: years and months have no fixed length`)
	require.Equal(t, "u", got.User, "what could be read is there")

	_, err = caliper.ReadSession([]byte(`{`))
	var syntax *record.SyntaxError
	require.ErrorAs(t, err, &syntax)
}

func TestReadSessionOfOfficialFixtures(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(shared(t), "fixtures")
	for file, want := range map[string]caliper.SessionRef{
		"v1p0/caliperSessionLoginEvent.json":     {User: "https://example.edu/user/554433", Session: "https://example.com/viewer/session-123456789", Application: "https://example.com/viewer"},
		"v1p0/caliperSessionLogoutEvent.json":    {User: "https://example.edu/user/554433", Session: "https://example.com/viewer/session-123456789", Application: "https://example.com/viewer"},
		"v1p0/caliperSessionTimeoutEvent.json":   {User: "https://example.edu/user/554433", Session: "https://example.com/viewer/session-123456789", Application: "https://example.com/viewer"},
		"v1p1/caliperEventSessionLoggedIn.json":  {User: "https://example.edu/users/554433", Session: "https://example.edu/sessions/1f6442a482de72ea6ad134943812bff564a76259", Application: "https://example.edu"},
		"v1p1/caliperEventSessionLoggedOut.json": {User: "https://example.edu/users/554433", Session: "https://example.edu/sessions/1f6442a482de72ea6ad134943812bff564a76259", Application: "https://example.edu"},
		"v1p1/caliperEventSessionTimedOut.json":  {User: "https://example.edu/users/112233", Session: "https://example.edu/sessions/7d6b88adf746f0692e2e873308b78c60fb13a864", Application: "https://example.edu"},
	} {
		event, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		got, err := caliper.ReadSession(event)
		require.NoError(t, err, file)
		require.False(t, got.StartedAt.IsZero(), file)
		want.StartedAt, want.EndedAt = got.StartedAt, got.EndedAt
		require.Equal(t, want, got, file)
	}
}
