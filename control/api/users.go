package api

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"millrace/control"
)

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

// userEndpoints are the addresses of people who sign in.
func (h *Handler) userEndpoints() []endpoint {
	all := []endpoint{
		adminReads(UsersPath, "People who sign in", []ListedUser{}, h.users, after("name", "ann")),
		adminReads(UsersPath+"/{name}", "What is decided about a user", User{}, h.user).withTag(),
		h.adminChanges(UsersPath, "Add a user with a password", reflect.TypeFor[UserAsk](), User{}, h.addUser),
	}
	users := h.Store.Users
	for _, c := range []userChange{
		{"role", "Give a user another role", "set role", true, User{}, func(ctx context.Context, name string, to asked) error {
			return users.SetRole(ctx, name, to.role, to.revisions)
		}},
		{"password", "Give a user another password, and sign them out", "set password", true, User{}, func(ctx context.Context, name string, to asked) error {
			return users.SetPassword(ctx, name, to.Password, to.revisions)
		}},
		{"disable", "Keep a user from signing in, and sign them out", "disable user", false, User{}, func(ctx context.Context, name string, to asked) error {
			return users.Disable(ctx, name, to.revisions)
		}},
		{"enable", "Let a user sign in again", "enable user", true, User{}, func(ctx context.Context, name string, to asked) error {
			return users.Enable(ctx, name, to.revisions)
		}},
		{"delete", "Delete a user, and sign them out; one whom a provider knows comes back with the next sign-in", "delete user", false, Ended{}, func(ctx context.Context, name string, to asked) error {
			return users.Delete(ctx, name, to.revisions)
		}},
	} {
		all = append(all, h.adminChanges(UsersPath+"/{name}/"+c.name, c.summary, reflect.TypeFor[UserChange](), c.answer, func(r *http.Request) (any, error) { return h.changeUser(r, c) }).withTag())
	}
	return all
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
		err = lasts(r)
	}
	if err == nil {
		err = h.Store.Users.Add(r.Context(), control.User{Name: ask.Name, Role: role, Account: ask.Account}, ask.Password)
	}
	if err = h.noted(r, ask.Who, "add user", ask.Name+", "+Given(ask.Role, ask.Account), err); err != nil {
		return nil, err
	}
	u, err := h.Store.Users.User(r.Context(), ask.Name)
	return userOf(u), err
}

// userChange is one that users can have.
type userChange struct {
	name, summary string
	action        string // for the audit log
	gives         bool   // it lets somebody do more, or makes them somebody whom others can be
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
	if err == nil && c.gives {
		err = lasts(r)
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
