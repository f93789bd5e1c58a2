package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"millrace/control"
	"millrace/control/access"
)

// Paths of who may do what, with all that is below them.
const (
	WhoamiPath = "/api/v1/whoami"
	TokensPath = "/api/v1/tokens"
	UsersPath  = "/api/v1/users"
	KeysPath   = "/api/v1/keys"
)

// ListPage is how many tokens, users or keys one answer has at most. Fewer are the last ones.
const ListPage = 1000

// Whoami is who asks, and what answers.
type Whoami struct {
	Name    string `json:"name"`
	Role    string `json:"role"`
	Account string `json:"account,omitempty"` // that they are bound to
	Version string `json:"version"`           // of the program that answers
}

// Token is the right of a program, or of a person, to do what a role may.
type Token struct {
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Account string    `json:"account,omitempty"` // that it is bound to
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // absent: never
	Used    time.Time `json:"used,omitzero"`    // the last time, to the hour
}

// Key is a sensor's right to send.
type Key struct {
	ID         string    `json:"id"` // names it without giving it away
	Account    string    `json:"account"`
	Env        string    `json:"env"`
	SourceType string    `json:"source_type"`
	Created    time.Time `json:"created"`
}

// After is what a list goes on after when this was the last one of a page.
func (k Key) After() string { return strings.Join([]string{k.Account, k.Env, k.SourceType, k.ID}, "/") }

// Secret is what was made, once: of the secret itself only a hash is kept.
type Secret struct {
	Secret string `json:"secret"`
	ID     string `json:"id,omitempty"` // of a key

	Expires time.Time `json:"expires,omitzero"` // of a token: no later than that which made it; absent: never
}

// Ended names what is no more.
type Ended struct {
	Name string `json:"name"` // of a token or a user, or the id of a key
}

// TokenAsk is what a token is asked for with.
type TokenAsk struct {
	Who     string    `json:"who,omitempty"`
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Account string    `json:"account,omitempty"`
	Expires time.Time `json:"expires,omitzero"` // default: never
}

// KeyAsk is what a sensor key is asked for with.
type KeyAsk struct {
	Who        string `json:"who,omitempty"`
	Account    string `json:"account"`
	Env        string `json:"env"`
	SourceType string `json:"source_type"`
}

// EndAsk is what the end of a token, or of a key, is asked for with.
type EndAsk struct {
	Who string `json:"who,omitempty"`
}

// identities are the addresses of tokens, users and sensor keys. They are for admins, who are not bound to an account.
func (h *Handler) identities() []endpoint {
	return append([]endpoint{
		{
			method: http.MethodGet, path: WhoamiPath, summary: "Who asks, and what answers", scope: access.Tenant, status: http.StatusOK, answer: reflect.TypeFor[Whoami](), serve: h.whoami,
		},
		adminReads(TokensPath, "Tokens, without what is secret of them", []Token{}, h.tokens, after("name", "ann")),
		h.adminChanges(TokensPath, "Make a token. The answer has its secret, which cannot be had again", reflect.TypeFor[TokenAsk](), Secret{}, h.addToken),
		h.adminChanges(TokensPath+"/{name}/revoke", "End a token", reflect.TypeFor[EndAsk](), Ended{}, h.revokeToken),
		adminReads(KeysPath, "Sensor keys, without what is secret of them", []Key{}, h.keys,
			after("account/env/source_type/id", "deepthought/deepthought3/EDGENUITY_LMS/4f0c2a9be1d7"), parameter{"account", "only those of this one", stringSchema("deepthought")}),
		h.adminChanges(KeysPath, "Make a sensor key. The answer has its secret, which cannot be had again", reflect.TypeFor[KeyAsk](), Secret{}, h.addKey),
		h.adminChanges(KeysPath+"/{id}/revoke", "End a sensor key; what was sent with it stays", reflect.TypeFor[EndAsk](), Ended{}, h.revokeKey),
	}, h.userEndpoints()...)
}

// adminReads is an address where admins read, and adminChanges one where they change something.
func adminReads(path, summary string, answer any, serve func(*http.Request) (any, error), query ...parameter) endpoint {
	return endpoint{method: http.MethodGet, path: path, summary: summary, query: query, status: http.StatusOK, answer: reflect.TypeOf(answer), serve: serve, takes: control.Admin}
}

func (h *Handler) adminChanges(path, summary string, body reflect.Type, answer any, serve func(*http.Request) (any, error)) endpoint {
	return endpoint{method: http.MethodPost, path: path, summary: summary, body: body, status: http.StatusOK, answer: reflect.TypeOf(answer), serve: h.limited(serve), takes: control.Admin}
}

// after is the parameter with which a list goes on.
func after(about, example string) parameter {
	return parameter{"after", fmt.Sprintf("%s of the last one that is known: an answer has %d at most, in that order", about, ListPage), stringSchema(example)}
}

// waitError refuses who has asked too often.
type waitError time.Duration

func (w waitError) seconds() int { return int((time.Duration(w) + time.Second - 1) / time.Second) }

func (w waitError) Error() string {
	return fmt.Sprintf("too many changes of tokens, users and keys; try again in %d s", w.seconds())
}

// limited bounds how often somebody changes tokens, users and keys: a hash of a password costs memory, and each change stays in the audit log. Whoever may read the
// data directory could change the file itself.
func (h *Handler) limited(serve func(*http.Request) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		p := access.From(r.Context())
		if !p.Local {
			if wait := h.changing.Take(time.Now(), p.Name); wait > 0 {
				return nil, waitError(wait)
			}
		}
		return serve(r)
	}
}

// grants returns an error when who asks would give somebody more than they have themselves, whatever the route takes.
func grants(r *http.Request, role control.Role, account string) error {
	p := access.From(r.Context())
	switch {
	case role > p.Role:
		return fmt.Errorf("%w: %s is %s, and cannot make somebody %s", control.ErrNotAllowed, p.Name, p.Role, role)
	case !p.Sees(account):
		return fmt.Errorf("%w: %s is bound to account %s, and can make nobody who is not", control.ErrNotAllowed, p.Name, p.Account)
	}
	return nil
}

// lasts returns an error when who asks would give somebody what does not end as they do: a user has no end.
func lasts(r *http.Request) error {
	if p := access.From(r.Context()); !p.Expires.IsZero() {
		return fmt.Errorf("%w: token %s ends at %s, and who signs in here does not: ask with a token that does not expire", control.ErrNotAllowed, p.Name, p.Expires.Format(time.RFC3339))
	}
	return nil
}

// parseRole reads a role that somebody is to have, and returns an error unless who asks can give it.
func parseRole(r *http.Request, text, account string) (control.Role, error) {
	role, err := control.ParseRole(text)
	if err != nil {
		return 0, fmt.Errorf("%w: role: %w", ErrInvalid, err)
	}
	return role, grants(r, role, account)
}

// Given is a role, and where somebody has it, for the audit log.
func Given(role, account string) string {
	if account == "" {
		return role
	}
	return role + " of account " + account
}

// pageOf are those of a list that come after ?after=, in order of their keys.
func pageOf[T any](r *http.Request, all []T, key func(T) string) []T {
	slices.SortFunc(all, func(a, b T) int { return cmp.Compare(key(a), key(b)) })
	after := r.URL.Query().Get("after")
	if i := slices.IndexFunc(all, func(t T) bool { return key(t) > after }); i >= 0 {
		return all[i:min(i+ListPage, len(all))]
	}
	return []T{}
}

func (h *Handler) whoami(r *http.Request) (any, error) {
	p := access.From(r.Context())
	return Whoami{Name: p.Name, Role: p.Role.String(), Account: p.Account, Version: h.Version}, nil
}

func (h *Handler) tokens(r *http.Request) (any, error) {
	list, err := h.Store.Tokens.List(r.Context())
	all := make([]Token, len(list))
	for i, t := range list {
		all[i] = Token{Name: t.Name, Role: t.Role.String(), Account: t.Account, Created: t.Created, Expires: t.Expires, Used: t.Used}
	}
	return pageOf(r, all, func(t Token) string { return t.Name }), err
}

func (h *Handler) addToken(r *http.Request) (any, error) {
	var ask TokenAsk
	if err := decode(r, &ask); err != nil {
		return nil, err
	}
	role, err := parseRole(r, ask.Role, ask.Account)
	secret := ""
	if ends := access.From(r.Context()).Expires; !ends.IsZero() && (ask.Expires.IsZero() || ask.Expires.After(ends)) {
		ask.Expires = ends // nobody gives away more than they have
	}
	if err == nil {
		secret, err = h.Store.Tokens.Add(r.Context(), control.Token{Name: ask.Name, Role: role, Account: ask.Account, Expires: ask.Expires})
	}
	return Secret{Secret: secret, Expires: ask.Expires}, h.noted(r, ask.Who, "add token", ask.Name+", "+Given(ask.Role, ask.Account), err)
}

func (h *Handler) revokeToken(r *http.Request) (any, error) {
	return h.end(r, "revoke token", r.PathValue("name"), h.Store.Tokens.Revoke)
}

// end ends what has a name.
func (h *Handler) end(r *http.Request, action, name string, end func(ctx context.Context, name string) error) (any, error) {
	var ask EndAsk
	if err := decode(r, &ask); err != nil {
		return nil, err
	}
	return Ended{name}, h.noted(r, ask.Who, action, name, end(r.Context(), name))
}

// noted takes note of a change, or of its refusal.
func (h *Handler) noted(r *http.Request, who, action, subject string, err error) error {
	who, _ = asker(r, who)
	return h.audited(r, control.Entry{Who: who, Action: action, Subject: subject, Outcome: "done"}, err)
}

func (h *Handler) keys(r *http.Request) (any, error) {
	list, err := h.Store.Keys.List(r.Context())
	all := []Key{}
	for _, k := range list {
		if of := r.URL.Query().Get("account"); of == "" || of == k.Account {
			all = append(all, Key{k.ID, k.Account, k.Env, k.SourceType, k.Created})
		}
	}
	return pageOf(r, all, Key.After), err
}

func (h *Handler) addKey(r *http.Request) (any, error) {
	var ask KeyAsk
	if err := decode(r, &ask); err != nil {
		return nil, err
	}
	secret, err := h.Store.Keys.Add(r.Context(), control.Key{Account: ask.Account, Env: ask.Env, SourceType: ask.SourceType})
	id := ""
	if err == nil {
		id = control.IDOf(secret)
	}
	return Secret{Secret: secret, ID: id}, h.noted(r, ask.Who, "add sensor key", strings.TrimSpace(fmt.Sprintf("%s:%s %s %s", ask.Account, ask.Env, ask.SourceType, id)), err)
}

func (h *Handler) revokeKey(r *http.Request) (any, error) {
	return h.end(r, "revoke sensor key", r.PathValue("id"), h.Store.Keys.Revoke)
}
