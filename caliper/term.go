package caliper

import (
	"strings"
	"unsafe"
)

// Term returns the bare term of a Caliper or LIS vocabulary IRI, and anything else unchanged. So types, actions, roles and
// statuses of all versions compare:
//
//	http://purl.imsglobal.org/caliper/v1/OutcomeEvent                        OutcomeEvent
//	http://purl.imsglobal.org/caliper/v1/lis/Membership                      Membership
//	http://purl.imsglobal.org/vocab/caliper/v1/action#Graded                 Graded
//	http://purl.imsglobal.org/vocab/lis/v2/membership#Learner                Learner
//	http://purl.imsglobal.org/vocab/lis/v2/membership/Learner#GuestLearner   Learner#GuestLearner
//	http://www.idpf.org/epub/vocab/structure/#volume                         unchanged
func Term(s string) string { return s[termStart(s):] }

// TermBytes is Term for bytes. It returns a sub-slice and does not allocate.
func TermBytes(b []byte) []byte {
	return b[termStart(unsafe.String(unsafe.SliceData(b), len(b))):]
}

// SameTerm reports whether a and b are one term, whichever version's spelling each has.
func SameTerm(a, b string) bool { return Term(a) == Term(b) }

// termStart returns where in s its term begins. In every spelling the term is at the end.
func termStart(s string) int {
	rest, found := strings.CutPrefix(s, "http")
	if !found {
		return 0
	}
	rest = strings.TrimPrefix(rest, "s")
	if rest, found = strings.CutPrefix(rest, "://purl.imsglobal.org/"); !found {
		return 0
	}
	if after, inVocab := strings.CutPrefix(rest, "vocab/"); inVocab {
		if !strings.HasPrefix(after, "caliper/") && !strings.HasPrefix(after, "lis/") {
			return 0
		}
	} else if !strings.HasPrefix(rest, "caliper/") {
		return 0
	}
	start := strings.LastIndexByte(s, '/') + 1
	if hash := strings.IndexByte(s[start:], '#'); hash >= 0 && !isUpper(s[start:]) {
		start += hash + 1 // action#Graded; but Learner#GuestLearner is a term with its sub-role
	}
	if !isUpper(s[start:]) {
		return 0
	}
	return start
}

// isUpper reports whether s begins like a term does.
func isUpper(s string) bool { return s != "" && 'A' <= s[0] && s[0] <= 'Z' }
