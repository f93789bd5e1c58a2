package control

import (
	"fmt"
	"slices"
	"strings"
)

// State is where an instance is in its life. In a busy one an operation is at work.
type State string

const (
	Starting   State = "STARTING"
	Seeding    State = "SEEDING"    // it runs, and reads its range of the lake
	Running    State = "RUNNING"    // it follows the log
	Restarting State = "RESTARTING" // its job failed and is being started again
	Suspending State = "SUSPENDING"
	Suspended  State = "SUSPENDED" // stopped, with a savepoint
	Canceling  State = "CANCELING"
	Canceled   State = "CANCELED" // stopped, without a savepoint
	Upgrading  State = "UPGRADING"
	Failed     State = "FAILED" // its job ended with an error, or could not be started
	Deleting   State = "DELETING"
	deleted    State = "" // it is not there: what Delete leads to, and Start from
)

// States are all of them, in the order of a life.
var States = []State{Starting, Seeding, Running, Restarting, Suspending, Suspended, Canceling, Canceled, Upgrading, Failed, Deleting}

// Busy reports whether an operation is at work that moves the instance from one state to another.
func (s State) Busy() bool {
	return s == Starting || s == Suspending || s == Canceling || s == Upgrading || s == Deleting
}

// runs reports whether the job is to run.
func (s State) runs() bool { return s == Seeding || s == Running || s == Restarting }

// Action is what people do with an instance.
type Action string

const (
	Start         Action = "start"     // make it, and run it
	Suspend       Action = "suspend"   // stop it with a savepoint
	Resume        Action = "resume"    // start it from that savepoint
	Recover       Action = "recover"   // start it from its last commit, or from a checkpoint
	Upgrade       Action = "upgrade"   // go on with the version of the app that is deployed
	TakeSavepoint Action = "savepoint" // keep its state on purpose
	Promote       Action = "promote"   // make it the one that readers see
	Rollback      Action = "rollback"  // make it the one that readers see, as it was before the last promotion
	Cancel        Action = "cancel"    // stop it without a savepoint; while an operation is at work, take that back
	Force         Action = "force"     // end an operation that does not come to its end, and the job with it
	Delete        Action = "delete"    // remove it with all that it has
)

// Actions are all of them.
var Actions = []Action{Start, Suspend, Resume, Recover, Upgrade, TakeSavepoint, Promote, Rollback, Cancel, Force, Delete}

// Role is what a person may do: each may do what those before it may.
type Role int

const (
	Viewer   Role = iota + 1 // sees reports
	Analyst                  // asks questions of all tables
	Operator                 // changes what runs
	Admin                    // and who may
)

var roles = []string{"viewer", "analyst", "operator", "admin"}

func (r Role) String() string {
	if r < Viewer || r > Admin {
		return "nobody"
	}
	return roles[r-1]
}

// ParseRole is the role of a name.
func ParseRole(name string) (Role, error) {
	if i := slices.Index(roles, name); i >= 0 {
		return Role(i + 1), nil
	}
	return 0, fmt.Errorf("there is no role %q; there are %s", name, strings.Join(roles, ", "))
}

// move is what an action does in the states that it is for.
//
//	from ──▶ via ──┬─▶ to         when all its steps are done
//	               ├─▶ failed     when one failed, and what it had begun is undone
//	               └─▶ canceled   when it was taken back, and what it had begun is undone
//
// same stands for the state that it was asked in.
type move struct {
	from                      []State
	via, to, failed, canceled State
	steps                     []Step
	undo                      []Step // what takes the steps back
	final                     bool   // it cannot be taken back, and is tried again until it succeeds
}

const same State = "same"

// moves are the lifecycle: with Allowed, which is total over it, the one place that says what may follow what.
var moves = map[Action]move{
	Start: {
		from: []State{deleted}, via: Starting, to: Running, failed: Failed, canceled: Canceled,
		steps: []Step{RunJob}, undo: []Step{StopJob},
	},
	Suspend: {
		from: []State{Seeding, Running, Restarting}, via: Suspending, to: Suspended, failed: Running, canceled: Running,
		steps: []Step{SuspendJob}, undo: []Step{RunJob},
	},
	Resume: {
		from: []State{Suspended}, via: Starting, to: Running, failed: Failed, canceled: Suspended,
		steps: []Step{RestoreJob, RunJob}, undo: []Step{StopJob},
	},
	Recover: {
		from: []State{Suspended, Canceled, Failed}, via: Starting, to: Running, failed: Failed, canceled: Canceled,
		steps: []Step{StopJob, RestoreJob, RunJob}, undo: []Step{StopJob},
	},
	Upgrade: {
		from: []State{Seeding, Running, Restarting, Suspended, Failed}, via: Upgrading, to: Running, failed: same, canceled: same,
		steps: []Step{CheckVersion, StopJob, SuspendJob, TakeVersion, RunJob, WatchJob}, undo: []Step{StopJob, ReturnVersion, RewindJob, RunJob},
	},
	TakeSavepoint: {
		from: []State{Seeding, Running, Restarting}, via: same, to: same, failed: same, canceled: same,
		steps: []Step{SavepointJob},
	},
	Promote: {
		from: []State{Seeding, Running, Restarting, Suspended, Canceled, Failed}, via: same, to: same, failed: same,
		steps: []Step{ServeInstance}, final: true,
	},
	Rollback: {
		from: []State{Seeding, Running, Restarting, Suspended, Canceled, Failed}, via: same, to: same, failed: same,
		steps: []Step{ServeInstance}, final: true,
	},
	Cancel: {
		from: []State{Seeding, Running, Restarting}, via: Canceling, to: Canceled, failed: Failed,
		steps: []Step{StopJob},
	},
	Delete: {
		from: []State{Seeding, Running, Restarting, Suspended, Canceled, Failed, Deleting}, via: Deleting, to: deleted, failed: Deleting,
		steps: []Step{StopJob, RemoveInstance}, final: true,
	},
}

// least is the least role that an action needs. Force may end a job in the middle of what it does.
func (a Action) least() Role {
	if a == Force {
		return Admin
	}
	return Operator
}

// Allowed returns nil when somebody of a role may do something with an instance in a state, and else why not, and what they can do. It matches
// ErrNotAllowed for the role, and ErrRefused for the state.
func Allowed(s State, a Action, r Role) error {
	switch {
	case !slices.Contains(Actions, a):
		return fmt.Errorf("%w: there is no action %q", ErrRefused, a)
	case r < a.least():
		return fmt.Errorf("%w: to %s an instance takes the role %s, and this is %s", ErrNotAllowed, a, a.least(), r)
	case a.possible(s):
		return nil
	}
	why := fmt.Sprintf("it is %s", s)
	switch {
	case a == Cancel && s.Busy():
		why += ", which cannot be taken back"
	case a == Force:
		why += ": no operation is at work that could be forced"
	}
	if can := Can(s, r); len(can) > 0 {
		words := make([]string, len(can))
		for i, a := range can {
			words[i] = string(a)
		}
		why += "; what can be done is " + strings.Join(words, ", ")
	}
	return fmt.Errorf("%w: %s", ErrRefused, why)
}

// Can lists what somebody of a role may do with an instance in a state. For an admin that is never nothing.
func Can(s State, r Role) []Action {
	return slices.DeleteFunc(slices.Clone(Actions), func(a Action) bool { return r < a.least() || !a.possible(s) })
}

// possible reports whether a state is one that the action is for.
func (a Action) possible(s State) bool {
	switch {
	case a == Force:
		return s.Busy() && s != Deleting
	case a == Cancel && s.Busy():
		return s == Starting || s == Suspending || s == Upgrading
	}
	return slices.Contains(moves[a].from, s)
}
