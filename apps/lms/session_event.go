package lms

import (
	"time"

	"millrace/caliper"
	"millrace/etl"
)

// SessionEvent is a login, a logout or a time-out.
type SessionEvent struct {
	SessionID     *string    `avro:"sessionId"`
	Action        string     `avro:"action" doc:"LoggedIn, LoggedOut or TimedOut"`
	UserID        string     `avro:"userId"`
	ApplicationID *string    `avro:"applicationId"`
	At            time.Time  `avro:"at"`
	StartedAt     *time.Time `avro:"startedAt" doc:"when the session says that it began"`
	EndedAt       *time.Time `avro:"endedAt" doc:"when the session says that it ended"`
}

var sessionEvents = etl.Table[SessionEvent]{
	Name: "session_event",
	Doc:  "logins, logouts and time-outs",
	From: etl.Events(caliper.SessionEvent).Actions(caliper.LoggedIn, caliper.LoggedOut, caliper.TimedOut),
	Map: func(r *etl.Reader) (SessionEvent, error) {
		row := SessionEvent{
			// 1.0 puts the session into generated at login and into target at logout.
			SessionID:     etl.Opt[string](r, "event.session.@id|event.generated.@id|event.target.@id"),
			Action:        r.Term("event.action"),
			ApplicationID: etl.Opt[string](r, "event.object.@id"),
			At:            r.EventTime(),
			StartedAt:     etl.Opt[time.Time](r, "event.session.startedAtTime|event.generated.startedAtTime|event.target.startedAtTime|event.object.startedAtTime"),
			EndedAt:       etl.Opt[time.Time](r, "event.session.endedAtTime|event.generated.endedAtTime|event.target.endedAtTime|event.object.endedAtTime"),
		}
		if row.Action != caliper.TimedOut {
			row.UserID = r.String("event.actor.@id")
			return row, nil
		}
		// The application acts on the session; whose session it was, the session says.
		row.SessionID = etl.Opt[string](r, "event.object.@id")
		row.ApplicationID = etl.Opt[string](r, "event.actor.@id")
		row.UserID = r.String("event.object.user.@id|event.object.actor.@id|event.session.user.@id")
		return row, nil
	},
}
