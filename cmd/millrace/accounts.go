package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"time"

	"millrace/control"
	"millrace/control/access"
	"millrace/web"
)

// accounts are the people who sign in. It implements web.Accounts.
type accounts struct {
	store *control.Store
	token string // of the link that makes the first admin; empty: there is somebody

	// A person's password is guessed from one address five times at once, and then twice a minute; from all addresses a hundred times, and then
	// once a minute. An address guesses fifty times, and then every two seconds: something before the server may have one for all.
	byPerson, byName, byAddress access.Limit
}

var _ web.Accounts = (*accounts)(nil)

func newAccounts(store *control.Store) *accounts {
	return &accounts{
		store:    store,
		byPerson: access.Limit{Tries: 5, Every: 30 * time.Second}, byName: access.Limit{Tries: 100, Every: time.Minute}, byAddress: access.Limit{Tries: 50, Every: 2 * time.Second},
	}
}

// limited does something that shows a password, unless that was tried too often. One that is right counts for nothing.
func (a *accounts) limited(r *http.Request, name string, do func() error) error {
	now, address := time.Now(), access.Address(r)
	person := name + "\x00" + address
	if wait := max(a.byAddress.Take(now, address), a.byPerson.Take(now, person), a.byName.Take(now, name)); wait > 0 {
		return web.Wait(wait)
	}
	err := do()
	if err == nil {
		a.byAddress.Give(address)
		a.byPerson.Give(person)
		a.byName.Give(name)
	}
	return err
}

// audit takes note of what became of a change that somebody asked for on a page.
func (a *accounts) audit(r *http.Request, who, action, subject string, err error) error {
	return a.note(r, control.Entry{Who: who, Role: access.From(r.Context()).Role.String(), Action: action, Subject: subject}, err)
}

// note adds an entry of something that was asked for on a page, with what became of it.
func (a *accounts) note(r *http.Request, e control.Entry, err error) error {
	e.Remote, e.Outcome = r.RemoteAddr, "done"
	if err != nil {
		e.Outcome = err.Error()
	}
	return errors.Join(err, a.store.Audit.Add(context.WithoutCancel(r.Context()), e))
}

// SignIn implements web.Accounts. A name that is wrong is not kept in the audit log: it may be a password.
func (a *accounts) SignIn(r *http.Request, name, password string) (secret string, err error) {
	err = a.limited(r, name, func() error {
		secret, err = a.store.Users.SignIn(r.Context(), name, password)
		return err
	})
	if err != nil {
		return "", err
	}
	return secret, a.audit(r, name, "sign in", name, nil)
}

// SignOut implements web.Accounts.
func (a *accounts) SignOut(ctx context.Context, secret string) error {
	return a.store.Users.SignOut(ctx, secret)
}

// Who implements web.Accounts.
func (a *accounts) Who(ctx context.Context, secret string) (access.Principal, bool) {
	p, err := a.session(ctx, secret)
	return p, err == nil
}

// session finds who is signed in, for access.Config.
func (a *accounts) session(ctx context.Context, secret string) (access.Principal, error) {
	u, err := a.store.Users.Session(ctx, secret)
	if errors.Is(err, control.ErrUnknownSession) {
		err = access.ErrUnknown
	}
	return access.Principal{Name: u.Name, Role: u.Role, Account: u.Account, Issuer: u.Issuer}, err
}

// SetPassword implements web.Accounts.
func (a *accounts) SetPassword(r *http.Request, name, old, password string) error {
	err := a.limited(r, name, func() error { return a.store.Users.Check(r.Context(), name, old) })
	if err != nil {
		return err
	}
	return a.audit(r, name, "set password", name, a.store.Users.SetPassword(r.Context(), name, password, nil))
}

// Setup implements web.Accounts.
func (a *accounts) Setup(token string) bool {
	return a.token != "" && subtle.ConstantTimeCompare([]byte(token), []byte(a.token)) == 1
}

// SetUp implements web.Accounts. Of two who use the link at once one is refused, by the store.
func (a *accounts) SetUp(r *http.Request, token, name, password string) error {
	if !a.Setup(token) {
		return fmt.Errorf("%w: the link is not good", control.ErrRefused)
	}
	return a.audit(r, name, "add user", name+", "+control.Admin.String(), a.store.Users.AddFirst(r.Context(), name, password))
}
