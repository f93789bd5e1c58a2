package web

import (
	"errors"
	"net/http"
	"net/url"

	"millrace/control"
	"millrace/control/access"
	"millrace/control/oidc"
)

// Provider is an OpenID Connect provider at which people sign in too. Errors that a person can do something about are an *oidc.Error, match
// control.ErrRefused, or are a Wait.
type Provider interface {
	// Name is what people call it.
	Name() string

	// Begin returns the address at the provider that a browser is sent to, and what it keeps until it comes back, for oidc.FlowLasts.
	Begin(r *http.Request, next string) (address, flow string, err error)

	// Finish returns the secret of a session for whoever comes back, and where they go now; the latter also with an error, if it is known.
	Finish(r *http.Request, flow string) (secret, next string, err error)
}

// providerPages adds the way to the provider and back. It is a link: a browser would hold the answer to a form to form-action, and not go to another site.
func (s *Server) providerPages(handle func(string, func(http.ResponseWriter, *http.Request) error)) {
	handle("GET "+access.ProviderPath, s.goToProvider)
	handle("GET "+access.CallbackPath, s.comeFromProvider)
}

// providerLink is what the login page shows of the provider.
type providerLink struct{ Name, Address string }

// loginForm is the login page for somebody who goes to next then.
func (s *Server) loginForm(r *http.Request, next string) loginForm {
	form := loginForm{layout: s.frame(r, "Sign in"), Next: next}
	if s.cfg.Provider != nil {
		form.Provider = &providerLink{s.cfg.Provider.Name(), access.ProviderPath + "?next=" + url.QueryEscape(next)}
	}
	return form
}

func (s *Server) goToProvider(w http.ResponseWriter, r *http.Request) error {
	next := access.Next(r.URL.Query().Get("next"))
	address, flow, err := s.cfg.Provider.Begin(r, next)
	if err != nil {
		return s.notSignedIn(w, r, next, err)
	}
	s.cfg.Cookies.BeginFlow(w, flow, oidc.FlowLasts)
	http.Redirect(w, r, address, http.StatusSeeOther)
	return nil
}

func (s *Server) comeFromProvider(w http.ResponseWriter, r *http.Request) error {
	secret, next, err := s.cfg.Provider.Finish(r, s.cfg.Cookies.Flow(r))
	next = access.Next(next)
	if !errors.Is(err, oidc.ErrNotBegun) { // a link of another site ends nothing that has begun
		s.cfg.Cookies.EndFlow(w)
	}
	if err != nil {
		return s.notSignedIn(w, r, next, err)
	}
	s.cfg.Cookies.Begin(w, secret, control.LongestSession)
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}

// notSignedIn shows the login page, which says why, and which takes passwords all the same.
func (s *Server) notSignedIn(w http.ResponseWriter, r *http.Request, next string, err error) error {
	form := s.loginForm(r, next)
	var status int
	if form.Error, status = mended(w, err); status == 0 {
		return err
	}
	if status == http.StatusUnprocessableEntity {
		status = http.StatusForbidden // nothing was typed that could be corrected
	}
	return s.serveForm(w, status, "login", form)
}
