package control

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Step is one thing that an operation does to the world. It is done at least once: a process that ends in the middle does it again, so a Runner
// does nothing where there is nothing left to do.
type Step string

const (
	CheckVersion   Step = "check version"  // that the deployed version can go on with the instance's state
	RunJob         Step = "run job"        // start the job, and wait until it is open
	StopJob        Step = "stop job"       // after its last commit
	SuspendJob     Step = "suspend job"    // stop it with a savepoint of its last commit; when that fails, it runs on
	SavepointJob   Step = "savepoint"      // while it runs
	RestoreJob     Step = "restore state"  // where Operation.Savepoint says; to where there is a good one, when the state is damaged or gone
	RewindJob      Step = "go back"        // to Operation.Savepoint
	TakeVersion    Step = "take version"   // of the deployed artifact; nothing runs
	ReturnVersion  Step = "return version" // to the one before
	WatchJob       Step = "watch job"      // for the time in which a bad version shows
	ServeInstance  Step = "serve"          // give the names that readers use to its tables
	RemoveInstance Step = "remove"         // all that it has
)

// OperationState is how an operation is, or how it ended.
type OperationState string

const (
	Working    OperationState = "WORKING"
	Undoing    OperationState = "UNDOING" // it failed, or was taken back
	Succeeded  OperationState = "SUCCEEDED"
	Unfinished OperationState = "FAILED"   // and what it had begun is undone, as far as Operation.Error does not say otherwise
	TakenBack  OperationState = "CANCELED" // and what it had begun is undone
)

// Operation is one action on an instance, from the moment it was asked for. It is durable: whoever finds one that has not ended goes on with it.
type Operation struct {
	ID int64 `json:"id"`
	Line
	DataVersion string `json:"data_version"`
	Action      Action `json:"action"`
	By

	From   State          `json:"from,omitempty"` // of the instance, when it was asked
	State  OperationState `json:"state"`
	Step   int            `json:"step"`            // how many of the steps are done, or while it is undone, of what undoes it
	Done   []StepDone     `json:"steps,omitempty"` // what was done until now, the oldest first
	Tried  int            `json:"tried,omitempty"` // how many of those were done before it was undone
	Error  string         `json:"error,omitempty"`
	Broken bool           `json:"broken,omitempty"` // undoing it failed

	Savepoint string `json:"savepoint,omitempty"` // that is made, or gone back to; a checkpoint is checkpoint/<epoch>
	Before    string `json:"before,omitempty"`    // version of the app that an upgrade leaves
	Version   string `json:"version,omitempty"`   // and the one that it leads to

	Canceled bool `json:"cancel_requested,omitempty"`
	Forced   bool `json:"force_requested,omitempty"`

	Began time.Time `json:"began"`
	Ended time.Time `json:"ended,omitzero"`
}

// UniqueID is the name of its instance.
func (o *Operation) UniqueID() string {
	return Instance{Line: o.Line, DataVersion: o.DataVersion}.UniqueID()
}

// StepDone is one step of an operation that has been done, or failed.
type StepDone struct {
	Step  Step      `json:"step"`
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	Error string    `json:"error,omitempty"`
}

// ended reports whether nothing is left to do.
func (o *Operation) ended() bool {
	return o.State == Succeeded || o.State == Unfinished || o.State == TakenBack
}

// steps are what the operation does, or what undoes it. What an instance that did not run before does not need is left out.
func (o *Operation) steps() []Step {
	m := moves[o.Action]
	steps := m.steps
	if o.State == Undoing {
		steps = m.undo
	}
	if o.Action != Upgrade {
		return steps
	}
	return slices.DeleteFunc(slices.Clone(steps), func(s Step) bool {
		if o.State != Undoing {
			return s == SuspendJob && !o.From.runs() || // it has its savepoint, or cannot make one
				s == StopJob && o.From.runs()
		}
		switch s {
		case StopJob:
			return !o.tried(RunJob)
		case ReturnVersion:
			return !o.tried(TakeVersion)
		case RewindJob:
			return !o.tried(RunJob) || o.Savepoint == ""
		case RunJob:
			return !o.tried(SuspendJob)
		}
		return false
	})
}

// tried reports whether a step was begun before the operation was undone, whatever became of it.
func (o *Operation) tried(s Step) bool {
	return slices.ContainsFunc(o.Done[:o.Tried], func(d StepDone) bool { return d.Step == s })
}

// next is the step to be done now; false when there is none.
func (o *Operation) next() (Step, bool) {
	if o.ended() || o.Step >= len(o.steps()) {
		return "", false
	}
	return o.steps()[o.Step], true
}

// after notes that a step was done, or what it failed of, and says what becomes of the instance: its state, and whether the operation has ended. It is
// all that decides about an operation, and has no effects.
func (o *Operation) after(s Step, began, ended time.Time, err error) {
	done := StepDone{Step: s, Began: began, Ended: ended}
	if err != nil {
		done.Error = err.Error()
	}
	o.Done = append(o.Done, done)
	switch {
	case o.Forced:
		o.end(ended, errors.New("it was forced to end"))
		return
	case err != nil && o.State == Undoing:
		o.Broken = true
		o.end(ended, fmt.Errorf("%s; then %s failed: %w", o.Error, s, err))
		return
	case err != nil && moves[o.Action].final:
		o.end(ended, fmt.Errorf("%s: %w", s, err))
		return
	case err != nil && o.Canceled:
		o.undo("it was taken back")
	case err != nil:
		o.undo(fmt.Sprintf("%s: %s", s, err))
	default:
		o.Step++
		if _, more := o.next(); more && o.Canceled && o.State == Working {
			o.undo("it was taken back")
		}
	}
	if _, more := o.next(); !more {
		o.end(ended, nil)
	}
}

// undo turns the operation around.
func (o *Operation) undo(why string) {
	o.State, o.Step, o.Tried, o.Error = Undoing, 0, len(o.Done), why
}

// end ends the operation. An error here is one beyond what was undone.
func (o *Operation) end(at time.Time, err error) {
	o.Ended = at
	switch {
	case err != nil:
		o.State, o.Error = Unfinished, err.Error()
	case o.State == Working:
		o.State = Succeeded
	case o.Canceled:
		o.State = TakenBack
	default:
		o.State = Unfinished
	}
}

// stopped reports whether the operation came to an end that is not its own, and the job is not to run.
func (o *Operation) stopped() bool {
	return o.ended() && o.State != Succeeded && o.Action.exclusive() && !o.leaves().runs()
}

// leaves is the state in which the operation leaves its instance: while it works, and once it has ended.
func (o *Operation) leaves() State {
	m := moves[o.Action]
	resolve := func(s State) State {
		if s == same {
			return o.From
		}
		return s
	}
	switch o.State {
	case Working, Undoing:
		return resolve(m.via)
	case Succeeded:
		return resolve(m.to)
	case TakenBack:
		return resolve(m.canceled)
	}
	switch {
	case o.Forced:
		return Canceled
	case o.Broken:
		return Failed
	}
	return resolve(m.failed)
}
