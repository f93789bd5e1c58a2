package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"millrace/control"
	"millrace/control/access"
	"millrace/plan"
)

// Paths of what is deployed, with all that is below them.
const (
	ArtifactsPath = "/api/v1/artifacts"
	BlockersPath  = "/api/v1/blockers"
)

// Deployments does the work of deploying.
type Deployments interface {
	Artifacts(ctx context.Context) ([]control.Artifact, error)

	// Push takes an artifact. The error matches ErrInvalid when it is none, or not one for this machine.
	Push(ctx context.Context, from io.Reader, who string) (control.Artifact, error)

	// DeleteArtifact removes an artifact with its files. The error matches control.ErrRefused while something needs it.
	DeleteArtifact(ctx context.Context, app, version, who string) (control.Artifact, error)

	Deploys(ctx context.Context, app string) ([]control.Deploy, error)

	// Deploy deploys a version, or with an empty one what was deployed before.
	Deploy(ctx context.Context, app string, ask DeployAsk) (control.Deploy, error)

	// Diff says what deploying a version would change.
	Diff(ctx context.Context, app, version string) (Diff, error)

	Blockers(ctx context.Context) ([]control.Blocker, error)
	Block(ctx context.Context, b control.Blocker) (control.Blocker, error)
	Lift(ctx context.Context, id int64, who string) (control.Blocker, error)
}

// DeployAsk is what a deploy is asked with.
type DeployAsk struct {
	Who     string `json:"who,omitempty"`
	Reason  string `json:"reason,omitempty"`  // needed with force
	Version string `json:"version,omitempty"` // to deploy; for a rollback it is what was deployed before
	Force   bool   `json:"force,omitempty"`   // in spite of blockers; takes an admin

	Revisions []int64 `json:"-"` // of If-Match: one must be the ID of the newest deploy, 0 while there is none. nil: any may
}

// BlockAsk is what a blocker is asked for with.
type BlockAsk struct {
	Who    string    `json:"who,omitempty"`
	Reason string    `json:"reason"`
	App    string    `json:"app,omitempty"`  // that it is for; default: all
	Until  time.Time `json:"until,omitzero"` // default: until it is lifted
}

// DeleteAsk is what the deletion of an artifact, or a savepoint, is asked for with.
type DeleteAsk struct {
	Who    string `json:"who,omitempty"`
	Reason string `json:"reason"`
}

// LiftAsk is what the end of a blocker is asked for with.
type LiftAsk struct {
	Who string `json:"who,omitempty"`
}

// Diff says what deploying a version would change.
type Diff struct {
	App  string `json:"app"`
	From string `json:"from"` // the version that is deployed
	To   string `json:"to"`

	Descriptor []FieldChange   `json:"descriptor"`
	Plan       plan.Comparison `json:"plan"` // tables' schemas, joins, stages
	Instances  []Verdict       `json:"instances"`
}

// FieldChange is a field that has another value.
type FieldChange struct {
	Field string `json:"field"`
	Was   any    `json:"was"`
	Is    any    `json:"is"`
}

// Verdict says whether an instance can be upgraded to a version in place.
type Verdict struct {
	DataVersion string   `json:"data_version"`
	Version     string   `json:"version"` // of the app that it runs
	State       string   `json:"state"`
	Refused     []string `json:"refused"` // why it cannot; empty: it can
}

// maxArtifact is how large an artifact may be, in bytes.
const maxArtifact = 1 << 30

// deploying are the addresses of deploying.
func (h *Handler) deploying() []endpoint {
	reads := func(path, summary string, answer any, serve func(*http.Request) (any, error), query ...parameter) endpoint {
		return endpoint{method: http.MethodGet, path: path, summary: summary, query: query, status: http.StatusOK, answer: reflect.TypeOf(answer), serve: serve}
	}
	changes := func(path, summary string, body reflect.Type, answer any, serve func(*http.Request) (any, error)) endpoint {
		return endpoint{method: http.MethodPost, path: path, summary: summary, body: body, status: http.StatusOK, answer: reflect.TypeOf(answer), serve: serve}
	}
	return []endpoint{
		reads(ArtifactsPath, "The versions of apps that were pushed, the newest first", []control.Artifact{}, func(r *http.Request) (any, error) { return h.Service.Artifacts(r.Context()) }),
		changes(ArtifactsPath, "Push an artifact that 'millrace build' made", nil, control.Artifact{}, h.push),
		changes(ArtifactsPath+"/{app}/{build}/delete", "Delete an artifact with its files, unless something needs it; its record stays, as a version stands for what it did", reflect.TypeFor[DeleteAsk](), control.Artifact{}, h.deleteArtifact),
		reads(Path+"/{app}/deploys", "Which versions were deployed, the newest first", []control.Deploy{}, h.deploys).withTag(),
		reads(Path+"/{app}/deploys/diff", "What deploying a version would change", Diff{}, func(r *http.Request) (any, error) {
			return h.Service.Diff(r.Context(), r.PathValue("app"), r.URL.Query().Get("version"))
		}, parameter{"version", "of the app", stringSchema("1.0.34")}),
		changes(Path+"/{app}/deploys", "Deploy a version: what is started or upgraded from then on is that one", reflect.TypeFor[DeployAsk](), control.Deploy{}, func(r *http.Request) (any, error) { return h.deploy(r, false) }).withTag(),
		changes(Path+"/{app}/deploys/rollback", "Deploy the version that was deployed before", reflect.TypeFor[DeployAsk](), control.Deploy{}, func(r *http.Request) (any, error) { return h.deploy(r, true) }).withTag(),
		reads(BlockersPath, "What keeps versions from being deployed, or kept", []control.Blocker{}, func(r *http.Request) (any, error) { return h.Service.Blockers(r.Context()) }),
		changes(BlockersPath, "Keep versions from being deployed", reflect.TypeFor[BlockAsk](), control.Blocker{}, h.block),
		changes(BlockersPath+"/{id}/lift", "End a blocker", reflect.TypeFor[LiftAsk](), control.Blocker{}, h.lift),
	}
}

// asker is who asks, who a process of this machine says that it is.
func asker(r *http.Request, says string) (who string, role control.Role) {
	p := access.From(r.Context())
	if p.Local {
		return cmp.Or(says, p.Name), p.Role
	}
	return p.Name, p.Role
}

// audited takes note of a change, or of its refusal.
func (h *Handler) audited(r *http.Request, e control.Entry, err error) error {
	e.Remote = r.RemoteAddr
	e.Role = access.From(r.Context()).Role.String()
	if err != nil {
		e.Outcome = err.Error()
	}
	if audit := h.Audit(context.WithoutCancel(r.Context()), e); audit != nil {
		err = errors.Join(err, fmt.Errorf("what was done is not in the audit log: %w", audit))
	}
	return err
}

func (h *Handler) push(r *http.Request) (any, error) {
	who, _ := asker(r, r.URL.Query().Get("who"))
	a, err := h.Service.Push(r.Context(), http.MaxBytesReader(nil, r.Body, maxArtifact), who)
	return a, h.audited(r, control.Entry{Who: who, Action: "push", Subject: strings.TrimSpace(a.App + " " + a.Version), Outcome: "pushed " + a.SHA256}, err)
}

// deletion reads what a deletion is asked for with, and who asks.
func deletion(r *http.Request) (ask DeleteAsk, who string, err error) {
	if err := decode(r, &ask); err != nil {
		return ask, "", err
	}
	if strings.TrimSpace(ask.Reason) == "" {
		return ask, "", fmt.Errorf("%w: this needs a reason, for the audit log", ErrInvalid)
	}
	who, _ = asker(r, ask.Who)
	return ask, who, nil
}

func (h *Handler) deleteArtifact(r *http.Request) (any, error) {
	ask, who, err := deletion(r)
	if err != nil {
		return nil, err
	}
	app, version := r.PathValue("app"), r.PathValue("build")
	a, err := h.Service.DeleteArtifact(r.Context(), app, version, who)
	return a, h.audited(r, control.Entry{Who: who, Action: "delete artifact", Subject: app + " " + version, Reason: ask.Reason, Outcome: "deleted " + a.SHA256}, err)
}

func (h *Handler) deploys(r *http.Request) (any, error) {
	all, err := h.Service.Deploys(r.Context(), r.PathValue("app"))
	newest := int64(0)
	if len(all) > 0 {
		newest = all[0].ID
	}
	return tagged{Tag(newest), all}, err
}

func (h *Handler) deploy(r *http.Request, rollback bool) (any, error) {
	var ask DeployAsk
	if err := decode(r, &ask); err != nil {
		return nil, err
	}
	who, role := asker(r, ask.Who)
	ask.Who = who
	var err error
	if ask.Revisions, err = revisions(r, ""); err != nil {
		return nil, err
	}
	switch {
	case rollback && ask.Version != "":
		return nil, fmt.Errorf("%w: a rollback is to the version that was deployed before: leave version out", ErrInvalid)
	case !rollback && ask.Version == "":
		return nil, fmt.Errorf("%w: say which version", ErrInvalid)
	case ask.Force && strings.TrimSpace(ask.Reason) == "":
		return nil, fmt.Errorf("%w: this needs a reason, for the history", ErrInvalid)
	case ask.Force && role < control.Admin:
		return nil, fmt.Errorf("%w: to deploy in spite of a blocker takes the role %s, and you are %s", control.ErrNotAllowed, control.Admin, role)
	}
	action := "deploy"
	if rollback {
		action = "roll back"
	}
	d, err := h.Service.Deploy(r.Context(), r.PathValue("app"), ask)
	return d, h.audited(r, control.Entry{
		Who: who, Action: action, Subject: strings.TrimSpace(r.PathValue("app") + " " + cmp.Or(d.Version, ask.Version)), Reason: ask.Reason, Outcome: fmt.Sprintf("deploy %d", d.ID),
	}, err)
}

func (h *Handler) block(r *http.Request) (any, error) {
	var ask BlockAsk
	if err := decode(r, &ask); err != nil {
		return nil, err
	}
	if strings.TrimSpace(ask.Reason) == "" {
		return nil, fmt.Errorf("%w: a blocker needs a reason, which is shown to whoever it stops", ErrInvalid)
	}
	who, _ := asker(r, ask.Who)
	b, err := h.Service.Block(r.Context(), control.Blocker{App: ask.App, Reason: ask.Reason, Who: who, Until: ask.Until})
	return b, h.audited(r, control.Entry{Who: who, Action: "block", Subject: cmp.Or(ask.App, "all apps"), Reason: ask.Reason, Outcome: fmt.Sprintf("blocker %d", b.ID)}, err)
}

func (h *Handler) lift(r *http.Request) (any, error) {
	var ask LiftAsk
	if err := decode(r, &ask); err != nil {
		return nil, err
	}
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: there is no blocker %q", ErrNotFound, r.PathValue("id"))
	}
	who, _ := asker(r, ask.Who)
	b, err := h.Service.Lift(r.Context(), id, who)
	return b, h.audited(r, control.Entry{Who: who, Action: "lift", Subject: fmt.Sprintf("blocker %d", id), Outcome: "lifted"}, err)
}

// Changes are the fields of a descriptor that have another value in another one.
func Changes(was, is control.Descriptor) ([]FieldChange, error) {
	all := []FieldChange{}
	var before, after map[string]any
	for _, x := range []struct {
		from control.Descriptor
		to   *map[string]any
	}{{was, &before}, {is, &after}} {
		text, err := json.Marshal(x.from)
		if err == nil {
			err = json.Unmarshal(text, x.to)
		}
		if err != nil {
			return nil, err
		}
	}
	t := reflect.TypeFor[control.Descriptor]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if !reflect.DeepEqual(before[name], after[name]) {
			all = append(all, FieldChange{name, before[name], after[name]})
		}
	}
	return all, nil
}
