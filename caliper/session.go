package caliper

import (
	"time"

	"millrace/record"
)

// SessionRef is who a SessionEvent is about, whichever shape it has.
type SessionRef struct {
	User        string    // id of the person; "" when the event does not tell
	Session     string    // id of the session
	Application string    // id of the application
	StartedAt   time.Time // zero when not known
	EndedAt     time.Time // zero when not known: its endedAtTime, else its start and duration
}

// A session has the same members wherever an event has it.
const (
	sessionID = iota
	sessionType
	sessionUser
	sessionActor
	sessionStarted
	sessionEnded
	sessionDuration
	sessionCount
)

// The places where events have sessions, and then what else is looked for.
const (
	atObject = iota * sessionCount
	atSession
	atGenerated
	atTarget
	sessionAction
)

const (
	sessionActorID = sessionAction + 1 + iota
	sessionActorType
	sessionEdApp
	sessionPathCount
)

var sessionPaths = mustCompile(sessionPathList()...)

func sessionPathList() []string {
	var paths []string
	for _, at := range []string{"object", "session", "generated", "target"} {
		for _, member := range []string{"id", "type", "user.id", "actor.id", "startedAtTime", "endedAtTime", "duration"} {
			paths = append(paths, at+"."+member)
		}
	}
	return append(paths, "action", "actor.id", "actor.type", "edApp.id")
}

// ReadSession reads the user, the session and the application of a SessionEvent:
//
//	            actor        object       session is in           user is
//	LoggedIn    person       application  session; 1.0 generated  actor
//	LoggedOut   person       application  session; 1.0 target     actor
//	TimedOut    application  the session  object                  object.user; 1.0 object.actor
//
// What does not fit the table is read by the types of its parts. The error is a *record.SyntaxError, or Problems with a
// time or an id that cannot be read.
func ReadSession(event []byte) (SessionRef, error) {
	var (
		ref SessionRef
		v   [sessionPathCount]record.Value
		ps  Problems
	)
	if err := sessionPaths.Scan(event, v[:]); err != nil {
		return ref, err
	}
	timedOut := term(v[sessionAction]) == TimedOut
	at := atSession
	switch {
	case isSession(v[atObject+sessionType]) || timedOut && !v[atObject+sessionType].IsSet() && v[atObject+sessionID].IsSet():
		at = atObject
	case v[atSession+sessionID].IsSet():
	case isSession(v[atGenerated+sessionType]):
		at = atGenerated
	case isSession(v[atTarget+sessionType]):
		at = atTarget
	}
	s := v[at : at+sessionCount]
	ref.Session = ps.text("session", s[sessionID])

	actorType := term(v[sessionActorType])
	actorIsApplication := IsA(actorType, SoftwareApplication) || actorType == "" && timedOut
	switch {
	case !actorIsApplication && !absent(v[sessionActorID]):
		ref.User = ps.text("actor", v[sessionActorID])
	case !absent(s[sessionUser]):
		ref.User = ps.text("session.user", s[sessionUser])
	default:
		ref.User = ps.text("session.actor", s[sessionActor])
	}

	switch {
	case at != atObject && !absent(v[atObject+sessionID]):
		ref.Application = ps.text("object", v[atObject+sessionID])
	case actorIsApplication && !absent(v[sessionActorID]):
		ref.Application = ps.text("actor", v[sessionActorID])
	default:
		ref.Application = ps.text("edApp", v[sessionEdApp])
	}

	ref.StartedAt = ps.time("startedAtTime", s[sessionStarted])
	ref.EndedAt = ps.time("endedAtTime", s[sessionEnded])
	if ref.EndedAt.IsZero() && !ref.StartedAt.IsZero() && !absent(s[sessionDuration]) {
		d, err := ParseDuration(s[sessionDuration])
		if err != nil {
			ps.add("duration", err.Error())
		} else {
			ref.EndedAt = ref.StartedAt.Add(d)
		}
	}
	return ref, ps.err()
}

func isSession(typ record.Value) bool { return IsA(term(typ), Session) }

// term reads a type or an action; "" for what is none.
func term(v record.Value) string {
	s, _ := v.Text()
	return Term(s)
}
