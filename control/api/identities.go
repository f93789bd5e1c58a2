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

// User is what is decided about a person who signs in. It has the ETag that a change of it may be asked for with, in If-Match.
type User struct {
	Name     string    `json:"name"`
	Role     string    `json:"role"`
	Account  string    `json:"account,omitempty"` // that they are bound to
	Disabled bool      `json:"disabled,omitempty"`
	Issuer   string    `json:"issuer,omitempty"` // of the provider that knows them, which says their role; absent: they have a password
	Created  time.Time `json:"created"`
	Revision int64     `json:"revision"`
}

// ListedUser is a user, and when they signed in last.
type ListedUser struct {
	User
	SignedIn time.Time `json:"signed_in,omitzero"`
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

// UserAsk is what a user is asked for with.
type UserAsk struct {
	Who      string `json:"who,omitempty"`
	Name     string `json:"name"`
	Role     string `json:"role"`
	Account  string `json:"account,omitempty"`
	Password string `json:"password"`
}

// UserChange is what a change of a user is asked for with.
type UserChange struct {
	Who      string `json:"who,omitempty"`
	Role     string `json:"role,omitempty"`     // for role
	Password string `json:"password,omitempty"` // for password
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
	after := func(about string) parameter { return parameter{"after", about, stringSchema("ann")} }
	reads := func(path, summary string, answer any, serve func(*http.Request) (any, error), query ...parameter) endpoint {
		return endpoint{method: http.MethodGet, path: path, summary: summary, query: query, status: http.StatusOK, answer: reflect.TypeOf(answer), serve: serve, takes: control.Admin}
	}
	changes := func(path, summary string, body reflect.Type, answer any, serve func(*http.Request) (any, error)) endpoint {
		return endpoint{method: http.MethodPost, path: path, summary: summary, body: body, status: http.StatusOK, answer: reflect.TypeOf(answer), serve: h.limited(serve), takes: control.Admin}
	}
	page := fmt.Sprintf(" %d of them at most, in order of their ", ListPage)
	all := []endpoint{
		{
			method: http.MethodGet, path: WhoamiPath, summary: "Who asks, and what answers", scope: access.Tenant, status: http.StatusOK, answer: reflect.TypeFor[Whoami](), serve: h.whoami,
		},
		reads(TokensPath, "Tokens, without what is secret of them:"+page+"names", []Token{}, h.tokens, after("name of the last one that is known")),
		changes(TokensPath, "Make a token. The answer has its secret, which cannot be had again", reflect.TypeFor[TokenAsk](), Secret{}, h.addToken),
		changes(TokensPath+"/{name}/revoke", "End a token", reflect.TypeFor[EndAsk](), Ended{}, h.revokeToken),
		reads(UsersPath, "People who sign in:"+page+"names", []ListedUser{}, h.users, after("name of the last one that is known")),
		reads(UsersPath+"/{name}", "What is decided about a user", User{}, h.user).withTag(),
		changes(UsersPath, "Add a user with a password", reflect.TypeFor[UserAsk](), User{}, h.addUser),
		reads(KeysPath, "Sensor keys, without what is secret of them:"+page+"accounts, envs, source types and ids", []Key{}, h.keys,
			after("account/env/source_type/id of the last one that is known"), parameter{"account", "only those of this one", stringSchema("deepthought")}),
		changes(KeysPath, "Make a sensor key. The answer has its secret, which cannot be had again", reflect.TypeFor[KeyAsk](), Secret{}, h.addKey),
		changes(KeysPath+"/{id}/revoke", "End a sensor key; what was sent with it stays", reflect.TypeFor[EndAsk](), Ended{}, h.revokeKey),
	}
	users := h.Store.Users
	for _, c := range []userChange{
		{"role", "Give a user another role", "set role", User{}, func(ctx context.Context, name string, to asked) error {
			return users.SetRole(ctx, name, to.role, to.revisions)
		}},
		{"password", "Give a user another password, and sign them out", "set password", User{}, func(ctx context.Context, name string, to asked) error {
			return users.SetPassword(ctx, name, to.Password, to.revisions)
		}},
		{"disable", "Keep a user from signing in, and sign them out", "disable user", User{}, func(ctx context.Context, name string, to asked) error {
			return users.Disable(ctx, name, to.revisions)
		}},
		{"enable", "Let a user sign in again", "enable user", User{}, func(ctx context.Context, name string, to asked) error {
			return users.Enable(ctx, name, to.revisions)
		}},
		{"delete", "Delete a user, and sign them out; one whom a provider knows comes back with the next sign-in", "delete user", Ended{}, func(ctx context.Context, name string, to asked) error {
			return users.Delete(ctx, name, to.revisions)
		}},
	} {
		all = append(all, changes(UsersPath+"/{name}/"+c.name, c.summary, reflect.TypeFor[UserChange](), c.answer, func(r *http.Request) (any, error) { return h.changeUser(r, c) }).withTag())
	}
	return all
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

// parseRole reads a role that somebody is to have, and returns an error unless who asks can give it.
func parseRole(r *http.Request, text, account string) (control.Role, error) {
	role, err := control.ParseRole(text)
	if err != nil {
		return 0, fmt.Errorf("%w: role: %w", ErrInvalid, err)
	}
	return role, grants(r, role, account)
}

// given is a role, and where somebody has it, for the audit log.
func given(role, account string) string {
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
	if err == nil {
		secret, err = h.Store.Tokens.Add(r.Context(), control.Token{Name: ask.Name, Role: role, Account: ask.Account, Expires: ask.Expires})
	}
	return Secret{Secret: secret}, h.noted(r, ask.Who, "add token", ask.Name+", "+given(ask.Role, ask.Account), err)
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

func userOf(u control.User) User {
	return User{Name: u.Name, Role: u.Role.String(), Account: u.Account, Disabled: u.Disabled, Issuer: u.Issuer, Created: u.Created, Revision: u.Revision}
}

func (h *Handler) users(r *http.Request) (any, error) {
	list, err := h.Store.Users.List(r.Context())
	all := make([]ListedUser, len(list))
	for i, u := range list {
		all[i] = ListedUser{userOf(u), u.SignedIn}
	}
	return pageOf(r, all, func(u ListedUser) string { return u.Name }), err
}

func (h *Handler) user(r *http.Request) (any, error) {
	u, err := h.Store.Users.User(r.Context(), r.PathValue("name"))
	return tagged{Tag(u.Revision), userOf(u)}, err
}

func (h *Handler) addUser(r *http.Request) (any, error) {
	var ask UserAsk
	if err := decode(r, &ask); err != nil {
		return nil, err
	}
	role, err := parseRole(r, ask.Role, ask.Account)
	if err == nil {
		err = h.Store.Users.Add(r.Context(), control.User{Name: ask.Name, Role: role, Account: ask.Account}, ask.Password)
	}
	if err = h.noted(r, ask.Who, "add user", ask.Name+", "+given(ask.Role, ask.Account), err); err != nil {
		return nil, err
	}
	u, err := h.Store.Users.User(r.Context(), ask.Name)
	return userOf(u), err
}

// userChange is one that users can have.
type userChange struct {
	name, summary string
	action        string // for the audit log
	answer        any
	do            func(ctx context.Context, name string, to asked) error
}

// asked is what a change of a user was asked for with.
type asked struct {
	UserChange
	role      control.Role
	revisions []int64
}

func (h *Handler) changeUser(r *http.Request, c userChange) (any, error) {
	var to asked
	err := decode(r, &to.UserChange)
	if err == nil {
		to.revisions, err = revisions(r, "")
	}
	switch {
	case err != nil:
		return nil, err
	case to.Role != "" && c.name != "role":
		return nil, fmt.Errorf("%w: role: this takes none; leave it out", ErrInvalid)
	case to.Password != "" && c.name != "password":
		return nil, fmt.Errorf("%w: password: this takes none; leave it out", ErrInvalid)
	}
	name, subject := r.PathValue("name"), r.PathValue("name")
	if c.name == "role" {
		subject += ", " + to.Role
		to.role, err = parseRole(r, to.Role, "")
	}
	if err == nil {
		err = c.do(r.Context(), name, to)
	}
	if err = h.noted(r, to.Who, c.action, subject, err); err != nil || c.name == "delete" {
		return Ended{name}, err
	}
	u, err := h.Store.Users.User(r.Context(), name)
	return userOf(u), err
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
	return Secret{secret, id}, h.noted(r, ask.Who, "add sensor key", strings.TrimSpace(fmt.Sprintf("%s:%s %s %s", ask.Account, ask.Env, ask.SourceType, id)), err)
}

func (h *Handler) revokeKey(r *http.Request) (any, error) {
	return h.end(r, "revoke sensor key", r.PathValue("id"), h.Store.Keys.Revoke)
}
