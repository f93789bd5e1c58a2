package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"

	"millrace/collect"
	"millrace/control"
	"millrace/control/access"
	"millrace/control/api"
	"millrace/delivery/catalog"
)

// routes are all that the stack answers, who may ask there, and whose things it is about. What is not said to be the tenants' is the stack's, and refused to who
// is bound to an account; so is an address of the console that is not named here.
func (s *stack) routes() []access.Route {
	all := []access.Route{
		{Pattern: "/healthz", Handler: s.console},
		{Pattern: "/readyz", Handler: s.console},
		{Pattern: "/assets/", Handler: s.console},
		{Pattern: access.SignInPath, Handler: s.console},
		{Pattern: access.ProviderPath, Handler: s.console},
		{Pattern: access.CallbackPath, Handler: s.console},
		{Pattern: "/logout", Handler: s.console},
		{Pattern: "/setup", Handler: s.console},
		{Pattern: "/account", Handler: s.console},
		{Pattern: api.EventsPath, Least: control.Viewer, Scope: access.Tenant, Shows: true, Handler: &s.events},
		{Pattern: "/{$}", Least: control.Viewer, Scope: access.Tenant, Shows: true, Handler: s.console},
		{Pattern: "/api/v1/status", Least: control.Viewer, Scope: access.Tenant, Shows: true, Handler: s.console},
		{Pattern: "/", Least: control.Viewer, Shows: true, Handler: s.console},
		{Pattern: "/metrics", Least: control.Viewer, Handler: http.HandlerFunc(s.serveMetrics)},
		{Pattern: "/tables/", Least: control.Analyst, Scope: access.Tenant, Handler: s.console}, // rows are of people
		{Pattern: "/events", Least: control.Analyst, Scope: access.Tenant, Handler: s.console},  // and so are those that pages are told of
		{Pattern: catalog.Path, Handler: s.catalog},                                             // it asks in the words of its protocol
		{Pattern: auditPath, Least: control.Admin, Named: true, Handler: http.HandlerFunc(s.serveAudit)},
		{Pattern: "POST " + backupPath, Least: control.Admin, Named: true, Handler: http.HandlerFunc(s.serveBackup)},
		{Pattern: profilePath, Least: control.Admin, Named: true, Handler: s.profiles()},
	}
	all = append(all, s.operators.Routes()...)
	for _, path := range s.collector.Paths() {
		all = append(all, access.Route{Pattern: path, Handler: s.collector}) // sensors have keys of their own
	}
	return all
}

// anonymous is the role of who shows no token at an address: a console on a machine of one's own is open, unless it is said that others reach it there.
func (c stackConfig) anonymousAt(address string) control.Role {
	switch {
	case c.anonymous != nil:
		return *c.anonymous
	case access.IsLoopback(address) && (c.publicURL == "" || isLocal(c.publicURL)):
		return control.Analyst
	}
	return 0
}

// who finds out whose secret it is. The one in running.json is of whoever may read the data directory: they may do all with what runs in it.
func (s *stack) who(ctx context.Context, secret string) (access.Principal, error) {
	if subtle.ConstantTimeCompare([]byte(secret), []byte(s.secret)) == 1 {
		return access.Principal{Name: "local", Role: control.Admin, Local: true}, nil
	}
	t, err := s.store.Tokens.Lookup(ctx, secret)
	if errors.Is(err, control.ErrUnknownToken) {
		err = access.ErrUnknown
	}
	return access.Principal{Name: t.Name, Role: t.Role, Account: t.Account, Expires: t.Expires}, err
}

// authorize returns an error unless a token may read the lake's tables.
func (s *stack) authorize(ctx context.Context, token string) error {
	p, err := s.who(ctx, token)
	switch {
	case errors.Is(err, access.ErrUnknown) || err == nil && p.Role < control.Analyst:
		err = catalog.ErrUnknownToken
	case err == nil && p.Account != "":
		err = fmt.Errorf("%w: %s is bound to account %s, and the files of a table hold the rows of all accounts: ask POST %s, or with a token that is not bound", catalog.ErrForbidden, p.Name, p.Account, api.SQLPath)
	}
	return err
}

// sensorKey finds what the items that come with a sensor key belong to.
func (s *stack) sensorKey(ctx context.Context, secret string) (collect.Key, error) {
	k, err := s.store.Keys.Lookup(ctx, secret)
	if errors.Is(err, control.ErrUnknownKey) {
		err = collect.ErrUnknownKey
	}
	return collect.Key{Account: k.Account, Env: k.Env, SourceType: k.SourceType}, err
}
