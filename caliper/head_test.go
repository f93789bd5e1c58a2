package caliper_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/caliper"
	"millrace/record"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	got, err := time.Parse(time.RFC3339Nano, text)
	require.NoError(t, err)
	return got.UTC()
}

func TestReadHead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		item string
		want caliper.Head
	}{
		"an event of 1.0": {
			`{"@context":"http://purl.imsglobal.org/ctx/caliper/v1/Context","@type":"http://purl.imsglobal.org/caliper/v1/OutcomeEvent",
			  "action":"http://purl.imsglobal.org/vocab/caliper/v1/action#Graded","eventTime":"2015-09-15T10:15:00.000Z"}`,
			caliper.Head{
				Kind: record.Event, Version: caliper.Version10, Type: caliper.OutcomeEvent, Action: caliper.Graded,
				EventTime: at(t, "2015-09-15T10:15:00Z"),
			},
		},
		"an event of 1.1": {
			`{"@context":"http://purl.imsglobal.org/ctx/caliper/v1p1","id":"urn:uuid:1","type":"SessionEvent","action":"LoggedIn",
			  "eventTime":{"$date":"2016-11-15T11:15:00.5+01:00"}}`,
			caliper.Head{
				Kind: record.Event, Version: caliper.Version11, ID: "urn:uuid:1", Type: caliper.SessionEvent, Action: caliper.LoggedIn,
				EventTime: at(t, "2016-11-15T10:15:00.5Z"),
			},
		},
		"an entity of 1.2 in an array of contexts": {
			`{"@context":["https://vendor.example/ctx","https://purl.imsglobal.org/ctx/caliper/v1p2"],"id":"p","type":"Person",
			  "dateModified":"2016-09-02T11:30:00.000Z"}`,
			caliper.Head{Kind: record.Entity, Version: caliper.Version12, ID: "p", Type: caliper.Person, DateModified: at(t, "2016-09-02T11:30:00Z")},
		},
		"a nested context":                      {`{"@context":{"@context":["x",{"@context":"http://purl.imsglobal.org/ctx/caliper/v1p1/ToolUseProfile-extension"}]},"type":"Person"}`, caliper.Head{Kind: record.Entity, Version: caliper.Version11, Type: caliper.Person}},
		"an inline context without Caliper's":   {`{"@context":{"name":"http://schema.org/name"},"type":"Person"}`, caliper.Head{Kind: record.Entity, Type: caliper.Person}},
		"no context, the type is an IRI":        {`{"@type":"http://purl.imsglobal.org/caliper/v1/lis/Membership"}`, caliper.Head{Kind: record.Entity, Version: caliper.Version10, Type: caliper.Membership}},
		"no context, the type is a term":        {`{"type":"Membership"}`, caliper.Head{Kind: record.Entity, Type: caliper.Membership}},
		"a type of another vocabulary":          {`{"@type":"http://www.idpf.org/epub/vocab/structure/#volume"}`, caliper.Head{Kind: record.Entity, Type: "http://www.idpf.org/epub/vocab/structure/#volume"}},
		"a vendor's event type with a time":     {`{"type":"Heartbeat","eventTime":"2016-11-15T10:15:00Z"}`, caliper.Head{Kind: record.Event, Type: "Heartbeat", EventTime: at(t, "2016-11-15T10:15:00Z")}},
		"an event without a time or an action":  {`{"@type":"http://purl.imsglobal.org/caliper/v1/OutcomeEvent"}`, caliper.Head{Kind: record.Event, Version: caliper.Version10, Type: caliper.OutcomeEvent}},
		"1.0's empties":                         {`{"@id":null,"@type":"http://purl.imsglobal.org/caliper/v1/Event","eventTime":null,"action":{ },"dateModified":[]}`, caliper.Head{Kind: record.Event, Version: caliper.Version10, Type: caliper.Event}},
		"escapes in names and values":           {`{"\u0074ype":"http:\/\/purl.imsglobal.org\/caliper\/v1\/lis\/Person","@id":"a\u00e9"}`, caliper.Head{Kind: record.Entity, Version: caliper.Version10, Type: caliper.Person, ID: "aé"}},
		"a deletion told by its action":         {`{"type":"Event","action":"Deleted"}`, caliper.Head{Kind: record.Event, Type: caliper.Event, Action: caliper.Deleted, Deleted: true}},
		"a deletion told by its type":           {`{"type":"MembershipDeletedEvent"}`, caliper.Head{Kind: record.Event, Type: "MembershipDeletedEvent", Deleted: true}},
		"an entity that is deleted":             {`{"type":"Membership","status":"http://purl.imsglobal.org/vocab/lis/v2/status#Deleted"}`, caliper.Head{Kind: record.Entity, Type: caliper.Membership, Deleted: true}},
		"an entity that is not":                 {`{"type":"Membership","status":"Active"}`, caliper.Head{Kind: record.Entity, Type: caliper.Membership}},
		"a date that means nothing on an event": {`{"type":"ViewEvent","dateModified":"soon"}`, caliper.Head{Kind: record.Event, Type: caliper.ViewEvent}},
	} {
		got, err := caliper.ReadHead([]byte(c.item))
		require.NoError(t, err, name)
		require.Equal(t, c.want, got, name)
	}
}

func TestReadHeadNamesEveryProblem(t *testing.T) {
	t.Parallel()
	for item, want := range map[string]string{
		`{"id":"x"}`:                         "type: it is missing",
		`{"type":null}`:                      "type: it is missing",
		`{"type":""}`:                        "type: it is missing",
		`{"type":["Person"]}`:                "type: it is an array, not a string",
		`{"type":"Person","id":7}`:           "id: it is a number, not a string",
		`{"type":"Event","eventTime":"now"}`: `eventTime: "now" is not an ISO 8601 time: expected a date like 2016-11-15`,
		`{"type":"Person","dateModified":5}`: "dateModified: 5 is no number of milliseconds since 1970",
		`{"eventTime":true,"id":[1],"action":3}`: "type: it is missing; id: it is an array, not a string; " +
			"eventTime: a boolean is not a time; action: it is a number, not a string",
		`"https://example.org/users/1"`: "item: it is not an object, so neither an event nor an entity",
		`null`:                          "item: it is not an object, so neither an event nor an entity",
		` [{"type":"Person"}]`:          "item: it is not an object, so neither an event nor an entity",
	} {
		_, err := caliper.ReadHead([]byte(item))
		require.EqualError(t, err, want, item)
		var problem *caliper.Problem
		require.ErrorAs(t, err, &problem)
		require.NotEmpty(t, problem.Reason)
	}
	head, err := caliper.ReadHead([]byte(`{"type":"Event","id":"e","eventTime":"now"}`))
	require.Error(t, err)
	require.Equal(t, caliper.Head{Kind: record.Event, Type: caliper.Event, ID: "e"}, head, "what could be read is there")

	_, err = caliper.ReadHead([]byte(`{"type":"Event"`))
	var syntax *record.SyntaxError
	require.ErrorAs(t, err, &syntax)
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	identity := func(item string) string {
		head, err := caliper.ReadHead([]byte(item))
		require.NoError(t, err)
		return caliper.Identity([]byte(item), head)
	}
	require.Equal(t, "urn:uuid:1", identity(`{"id":"urn:uuid:1","type":"ViewEvent"}`))
	fp := identity(`{"@type":"http://purl.imsglobal.org/caliper/v1/ViewEvent","count":1}`)
	require.Regexp(t, `^fp:[0-9a-f]{32}$`, fp)
	require.Equal(t, fp, identity(` {"count":1.0, "@type":"http:\/\/purl.imsglobal.org/caliper/v1/ViewEvent"}`), "the same event, redelivered in another spelling")
	require.NotEqual(t, fp, identity(`{"@type":"http://purl.imsglobal.org/caliper/v1/ViewEvent","count":2}`))
	require.Regexp(t, `^fp:`, identity(`{"id":"_:b0","type":"ViewEvent"}`), "a blank node is local to its envelope")

	broken := []byte("{\"id\":\"\t\"}")
	require.Regexp(t, `^bytes:[0-9a-f]{32}$`, caliper.Identity(broken, caliper.Head{}))
	require.NotEqual(t, caliper.Identity(broken, caliper.Head{}), caliper.Identity(broken[1:], caliper.Head{}))
}

func TestAnonymous(t *testing.T) {
	t.Parallel()
	const person = "http://purl.imsglobal.org/caliper/v1/lis/Person"
	for _, c := range []struct {
		id, typ string
		want    bool
	}{
		{person, person, true},
		{person, caliper.Person, true},
		{caliper.Person, caliper.Person, true},
		{"http://purl.imsglobal.org/caliper/v1/Person", "Person", true},
		{"http://vendor.example/Robot", "http://vendor.example/Robot", true},
		{"_:b0", caliper.Person, true},
		{"", caliper.Person, true},
		{"https://example.edu/users/1", caliper.Person, false},
		{"urn:uuid:1", "", false},
		{"7c0fc54b-fa2e-4e4b-a7a6-0d8e56a1a4b8", caliper.Person, false},
	} {
		require.Equal(t, c.want, caliper.Anonymous(c.id, c.typ), "%q of type %q", c.id, c.typ)
	}
}

func TestVersionTime(t *testing.T) {
	t.Parallel()
	modified, carrier, sent := at(t, "2016-01-01T00:00:00Z"), at(t, "2017-01-01T00:00:00Z"), at(t, "2018-01-01T00:00:00Z")
	require.Equal(t, modified, caliper.VersionTime(caliper.Head{DateModified: modified}, sent, carrier))
	require.Equal(t, carrier, caliper.VersionTime(caliper.Head{}, sent, carrier))
	require.Equal(t, sent, caliper.VersionTime(caliper.Head{}, sent, time.Time{}))
}
