package caliper_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/caliper"
)

func TestTerm(t *testing.T) {
	t.Parallel()
	for iri, want := range map[string]string{
		"http://purl.imsglobal.org/caliper/v1/OutcomeEvent":                      caliper.OutcomeEvent,
		"https://purl.imsglobal.org/caliper/v1/OutcomeEvent":                     caliper.OutcomeEvent,
		"http://purl.imsglobal.org/caliper/v1/lis/Membership":                    caliper.Membership,
		"http://purl.imsglobal.org/caliper/Person":                               caliper.Person,
		"http://purl.imsglobal.org/caliper/v1p1/GradeEvent":                      caliper.GradeEvent,
		"http://purl.imsglobal.org/vocab/caliper/v1/action#Graded":               caliper.Graded,
		"http://purl.imsglobal.org/caliper/actions/Graded":                       caliper.Graded,
		"http://purl.imsglobal.org/vocab/lis/v2/membership#Learner":              caliper.Learner,
		"http://purl.imsglobal.org/vocab/lis/v2/membership/Learner#GuestLearner": "Learner#GuestLearner",
		"http://purl.imsglobal.org/vocab/lis/v2/status#Active":                   caliper.Active,
	} {
		require.Equal(t, want, caliper.Term(iri), iri)
		require.Equal(t, want, string(caliper.TermBytes([]byte(iri))), iri)
		require.True(t, caliper.SameTerm(iri, want))
		require.False(t, caliper.SameTerm(iri, want+"X"))
	}
	for _, whole := range []string{
		"", "OutcomeEvent", "Learner", "Learner#GuestLearner", "h", "http", "https://", "http://purl.imsglobal.org/",
		"http://www.idpf.org/epub/vocab/structure/#volume",
		"http://vendor.example/caliper/v1/OutcomeEvent",
		"http://purl.imsglobal.org/ctx/caliper/v1/Context",
		"http://purl.imsglobal.org/vocab/qti/v2/Item",
		"http://purl.imsglobal.org/caliper/",
		"http://purl.imsglobal.org/vocab/caliper/v1/action#",
		"http://purl.imsglobal.org/vocab/caliper/v1/action",
	} {
		require.Equal(t, whole, caliper.Term(whole))
		require.Equal(t, whole, string(caliper.TermBytes([]byte(whole))))
	}
}

// Not parallel: it counts allocations.
func TestTermBytesDoesNotAllocate(t *testing.T) {
	iri := []byte("http://purl.imsglobal.org/caliper/v1/lis/Membership")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if string(caliper.TermBytes(iri)) != caliper.Membership {
			t.Fatal(iri)
		}
	}))
}

func TestIsA(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		term, ofType string
		want         bool
	}{
		{caliper.Assessment, caliper.Assessment, true},
		{caliper.Assessment, caliper.AssignableDigitalResource, true},
		{caliper.Assessment, caliper.DigitalResourceCollection, true},
		{caliper.Assessment, caliper.DigitalResource, true},
		{caliper.Assessment, caliper.Entity, true},
		{"http://purl.imsglobal.org/caliper/v1/Assessment", "http://purl.imsglobal.org/caliper/v1/AssignableDigitalResource", true},
		{caliper.AssignableDigitalResource, caliper.Assessment, false},
		{caliper.CourseSection, caliper.Organization, true},
		{caliper.CourseSection, caliper.Agent, true},
		{caliper.CourseSection, caliper.CourseOffering, false},
		{caliper.BookmarkAnnotation, caliper.Annotation, true},
		{caliper.LtiSession, caliper.Session, true},
		{caliper.Session, caliper.LtiSession, false},
		{"VendorThing", caliper.Entity, true},
		{"VendorThing", "VendorThing", true},
		{"VendorThing", caliper.Agent, false},
		{"", "", false},
		{"", caliper.Entity, false},
	} {
		require.Equal(t, c.want, caliper.IsA(c.term, c.ofType), "%s is a %s", c.term, c.ofType)
	}
}
