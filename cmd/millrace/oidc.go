package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/control"
	"millrace/control/access"
	"millrace/control/api"
	"millrace/control/oidc"
	"millrace/web"
)

// oidcSecretVariable has the client's secret: flags can be read by other users of the machine, and files are copied.
const oidcSecretVariable = "MILLRACE_OIDC_CLIENT_SECRET"

// noRole is what a setting calls the role that may do nothing.
const noRole = "none"

// oidcSettings are those of an OpenID Connect provider at which people sign in.
type oidcSettings struct {
	issuer      string // empty: there is none
	clientID    string
	secret      string   // empty: a public client
	roleClaim   string   // claim that tells the role; empty: oidc.DefaultRoleClaim
	roles       []string // VALUE=ROLE, of that claim
	accounts    string   // claim that tells the account that somebody is bound to; empty: nobody is
	defaultRole string   // empty: none
	name        string   // what people call it; empty: its host
}

// oidcFlags adds the flags of the provider.
func oidcFlags(cmd *cobra.Command, o *oidcSettings) {
	f := cmd.Flags()
	f.StringVar(&o.issuer, "oidc-issuer", "", "URL of an OpenID Connect provider at which people may sign in too, exactly as its tokens have it. The client's secret is said by $"+oidcSecretVariable)
	f.StringVar(&o.clientID, "oidc-client-id", "", "what the provider knows this stack by")
	f.StringVar(&o.roleClaim, "oidc-role-claim", oidc.DefaultRoleClaim, "claim that tells a person's role: a text, or a list of them; or a path to a member of one, such as realm_access.roles")
	f.StringVar(&o.accounts, "oidc-account-claim", "", "claim, or path, that tells the account that a person is bound to; who has none is refused, unless they are admin. Default: nobody is bound")
	f.StringSliceVar(&o.roles, "oidc-roles", nil, "roles by value of that claim, such as staff=analyst,ops=operator: viewer, analyst, operator or admin; of several the greatest counts")
	f.StringVar(&o.defaultRole, "oidc-default-role", noRole, "role of who has no value with a role: none, viewer, analyst, operator or admin; with none they are refused")
	f.StringVar(&o.name, "oidc-name", "", "what people call the provider, for the button of the login page; default: its host")
}

// config is that of the provider, which sends browsers back to redirect.
func (o oidcSettings) config(redirect string) (cfg oidc.Config, err error) {
	cfg = oidc.Config{Issuer: o.issuer, ClientID: o.clientID, ClientSecret: o.secret, Redirect: redirect, RoleClaim: o.roleClaim, AccountClaim: o.accounts, Roles: map[string]control.Role{}}
	for _, text := range o.roles {
		i := strings.LastIndex(text, "=")
		if i < 1 {
			return cfg, usagef("--oidc-roles %q: want VALUE=ROLE, such as staff=analyst", text)
		}
		if cfg.Roles[text[:i]], err = control.ParseRole(text[i+1:]); err != nil {
			return cfg, usagef("--oidc-roles %q: %w", text, err)
		}
	}
	if o.defaultRole != "" && o.defaultRole != noRole {
		if cfg.DefaultRole, err = control.ParseRole(o.defaultRole); err != nil {
			return cfg, usagef("--oidc-default-role: %w, none", err)
		}
	}
	return cfg, nil
}

// checkOIDC returns an error unless it is said where people sign in, who they are then, and where they come back to.
func (c stackConfig) checkOIDC() error {
	if c.publicURL != "" {
		if err := validPublicURL(c.publicURL); err != nil {
			return usagef("--public-url: %w", err)
		}
	}
	o := c.oidc
	if o.issuer == "" {
		if o.clientID != "" || len(o.roles) > 0 || o.name != "" || o.accounts != "" || o.defaultRole != "" && o.defaultRole != noRole {
			return usagef("--oidc-… say how people sign in at a provider, and there is none: give --oidc-issuer")
		}
		return nil
	}
	if err := oidc.ValidIssuer(o.issuer); err != nil {
		return usagef("--oidc-issuer: %w", err)
	}
	if o.clientID == "" {
		return usagef("--oidc-issuer needs --oidc-client-id: what the provider knows this stack by")
	}
	cfg, err := o.config("")
	if err != nil {
		return err
	}
	if len(cfg.Roles) == 0 && cfg.DefaultRole == 0 {
		return usagef("--oidc-issuer needs --oidc-roles, or a --oidc-default-role: nobody would have a role")
	}
	if c.publicURL == "" && (c.insecure || !access.IsLoopback(c.listen)) {
		return usagef("--oidc-issuer needs --public-url, such as https://millrace.example.edu: the provider sends people back there, and what a request says of its host is not believed")
	}
	return nil
}

// validPublicURL returns an error unless a URL can be where browsers reach the console.
func validPublicURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%q: want a URL without a path, such as https://millrace.example.edu", text)
	}
	if u.Scheme == "http" && !isLocal(text) {
		return fmt.Errorf("%q: want https, or http on this machine alone: sessions are shown there", text)
	}
	return nil
}

// isLocal reports whether a URL is of this machine alone.
func isLocal(text string) bool {
	u, err := url.Parse(text)
	return err == nil && access.IsLoopback(net.JoinHostPort(u.Hostname(), u.Port()))
}

// openProvider makes what signs people in at a provider, unless there is none. The provider is asked when somebody signs in.
func (s *stack) openProvider() error {
	if s.cfg.oidc.issuer == "" {
		return nil
	}
	cfg, err := s.cfg.oidc.config(s.publicURL() + access.CallbackPath)
	if err != nil {
		return err
	}
	p, err := oidc.New(cfg)
	if err != nil {
		return fmt.Errorf("OpenID Connect: %w", err)
	}
	u, err := url.Parse(cfg.Issuer)
	if err != nil {
		return fmt.Errorf("OpenID Connect: %w", err)
	}
	s.provider = &provider{
		accounts: s.accounts, oidc: p, issuer: cfg.Issuer, name: cmp.Or(s.cfg.oidc.name, u.Host), logger: s.cfg.logger,
		unknown: access.Limit{Tries: 100, Every: time.Minute},
	}
	return nil
}

// provider signs people in at an OpenID Connect provider. It implements web.Provider.
type provider struct {
	accounts     *accounts
	oidc         *oidc.Provider
	issuer, name string
	logger       *slog.Logger

	// Anybody can come back with an answer that is none. The audit log, which is only added to, keeps a hundred of those at once and then one a minute;
	// the other log has all.
	unknown access.Limit
}

var _ web.Provider = (*provider)(nil)

// Name implements web.Provider.
func (p *provider) Name() string { return p.name }

// Begin implements web.Provider.
func (p *provider) Begin(r *http.Request, next string) (address, flow string, err error) {
	address, flow, err = p.oidc.Begin(r.Context(), next)
	if err != nil {
		p.logger.Warn("sign-in not begun", "issuer", p.issuer, "error", err)
	}
	return address, flow, err
}

// Finish implements web.Provider. An address comes back with answers that are wrong as often as it shows wrong passwords.
func (p *provider) Finish(r *http.Request, flow string) (secret, next string, err error) {
	address := access.Address(r)
	if wait := p.accounts.byAddress.Take(time.Now(), address); wait > 0 {
		return "", "", web.Wait(wait)
	}
	id, next, err := p.oidc.Finish(r.Context(), flow, r.URL.Query())
	if err == nil || errors.Is(err, oidc.ErrAway) || errors.Is(err, oidc.ErrNoRole) { // nothing was guessed
		p.accounts.byAddress.Give(address)
	}
	var in control.Entrance
	if err == nil {
		in, err = p.accounts.store.Users.SignInAs(r.Context(), id)
	}
	if err != nil {
		return "", next, p.refuse(r, id, err)
	}
	name, role := in.User.Name, in.User.Role
	is := name + ", " + api.Given(role.String(), in.User.Account)
	switch {
	case in.Was == 0:
		err = p.audit(r, id, name, role, "add user", is, nil)
	case in.Was != role || in.WasOf != in.User.Account:
		err = p.audit(r, id, name, role, "set role", is, nil)
	}
	return in.Secret, next, errors.Join(err, p.audit(r, id, name, role, "sign in", name, nil))
}

// refuse takes note of who could not sign in, and why. Whom the provider gives no role has none in the sessions that there are either.
func (p *provider) refuse(r *http.Request, id control.Identity, err error) error {
	p.logger.Warn("sign-in refused", "issuer", p.issuer, "subject", id.Subject, "remote", r.RemoteAddr, "error", err)
	if errors.Is(err, oidc.ErrNoRole) {
		if err := p.accounts.store.Users.SignOutAs(context.WithoutCancel(r.Context()), id.Issuer, id.Subject); err != nil {
			return err
		}
	}
	name := "anonymous"
	if id.Subject == "" && p.unknown.Take(time.Now(), "") > 0 {
		return err
	}
	if len(id.Names) > 0 {
		name = oidc.Brief(id.Names[0])
	}
	return p.audit(r, id, name, id.Role, "sign in", name, err)
}

// audit takes note of what became of the sign-in of an identity.
func (p *provider) audit(r *http.Request, id control.Identity, who string, role control.Role, action, subject string, err error) error {
	reason := "OpenID Connect, " + p.issuer
	if id.Subject != "" {
		reason += ", subject " + oidc.Brief(id.Subject)
	}
	return p.accounts.note(r, control.Entry{Who: who, Role: role.String(), Action: action, Subject: subject, Reason: reason}, err)
}

// takeSecret takes the client's secret out of the environment: the processes of jobs have that too, and run what others wrote.
func (o *oidcSettings) takeSecret() error {
	o.secret = os.Getenv(oidcSecretVariable)
	return os.Unsetenv(oidcSecretVariable)
}
