package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"millrace/control"
	"millrace/control/access"
	"millrace/control/oidc"
)

// Accounts are people who sign in. Errors that a person can do something about match control.ErrWrongPassword, control.ErrRefused or
// control.ErrUserExists, or are a *Wait.
type Accounts interface {
	// SignIn returns the secret of a session.
	SignIn(r *http.Request, name, password string) (secret string, err error)

	// SignOut ends a session.
	SignOut(ctx context.Context, secret string) error

	// Who returns who is signed in with a session; false when nobody is.
	Who(ctx context.Context, secret string) (p access.Principal, ok bool)

	// SetPassword gives a person another password, who shows the one that they have.
	SetPassword(r *http.Request, name, old, password string) error

	// Setup reports whether a token is that of the link which makes the first admin. SetUp makes them.
	Setup(token string) bool
	SetUp(r *http.Request, token, name, password string) error
}

// Wait is the error of somebody who has tried too often.
type Wait time.Duration

func (w Wait) Error() string {
	return fmt.Sprintf("too many tries; try again in %d s", w.seconds())
}

func (w Wait) seconds() int { return int(time.Duration(w).Seconds()) + 1 }

// maxForm is how large a form may be, in bytes.
const maxForm = 16 << 10

// accountsPages adds the pages of those who sign in.
func (s *Server) accountsPages(handle func(string, func(http.ResponseWriter, *http.Request) error)) {
	handle("GET /login", func(w http.ResponseWriter, r *http.Request) error {
		return s.serveForm(w, http.StatusOK, "login", s.loginForm(r, access.Next(r.URL.Query().Get("next"))))
	})
	handle("POST /login", s.signIn)
	handle("POST /logout", s.signOut)
	handle("GET /setup", s.showSetup)
	handle("POST /setup", s.setUp)
	handle("GET /account", s.showAccount)
	handle("POST /account", s.changePassword)
}

type loginForm struct {
	layout
	Name, Next, Error string
	Provider          *providerLink // nil: there is none
}

type setupForm struct {
	layout
	Name, Token, Error string
}

type accountForm struct {
	layout
	Role, Error string
	Issuer      string // of the provider that has the password; empty: it is kept here
}

// frame is what the frame of a page says to whoever asks for it.
func (s *Server) frame(r *http.Request, title string) layout {
	l := layout{Title: title, Version: s.version()}
	s.signs(r, &l)
	return l
}

// signs notes where this is, and who is signed in.
func (s *Server) signs(r *http.Request, l *layout) {
	l.Stack = s.cfg.Stack
	if s.cfg.Accounts == nil {
		return
	}
	l.Accounts = true
	if p, ok := s.who(r); ok {
		l.Who = p.Name
	}
}

func (s *Server) who(r *http.Request) (access.Principal, bool) {
	return s.cfg.Accounts.Who(r.Context(), s.cfg.Cookies.Secret(r))
}

func (s *Server) serveForm(w http.ResponseWriter, status int, name string, data any) error {
	site, err := s.site()
	if err != nil {
		return err
	}
	body, err := site.render(name, "page", data)
	if err != nil {
		return err
	}
	writePage(w, status, body)
	return nil
}

// mended is what a person is told of a form that they can mend, with the status of the answer; it is empty for other errors.
func mended(w http.ResponseWriter, err error) (text string, status int) {
	var wait Wait
	var unknown *oidc.Error
	switch {
	case errors.As(err, &wait):
		w.Header().Set("Retry-After", strconv.Itoa(wait.seconds()))
		return sentence(wait.Error()), http.StatusTooManyRequests
	case errors.Is(err, control.ErrWrongPassword):
		return "Wrong name or password.", http.StatusUnauthorized
	case errors.Is(err, control.ErrRefused), errors.Is(err, control.ErrUserExists):
		_, why, found := strings.Cut(err.Error(), control.ErrRefused.Error()+": ")
		if !found {
			why = err.Error()
		}
		return sentence(why), http.StatusUnprocessableEntity
	case errors.As(err, &unknown):
		status = http.StatusForbidden
		if errors.Is(unknown, oidc.ErrAway) {
			status = http.StatusBadGateway
		} else if errors.Is(unknown, oidc.ErrNotBegun) {
			status = http.StatusBadRequest
		}
		return sentence(unknown.Text), status
	}
	return "", 0
}

// errTwice says that a password was not the same the second time.
var errTwice = fmt.Errorf("%w: the two passwords are not the same", control.ErrRefused)

func parseForm(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("%w: the form: %w", ErrInvalid, err)
	}
	return nil
}

func (s *Server) signIn(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	form := s.loginForm(r, access.Next(r.PostForm.Get("next")))
	form.Name = r.PostForm.Get("name")
	secret, err := s.cfg.Accounts.SignIn(r, form.Name, r.PostForm.Get("password"))
	if err != nil {
		var status int
		if form.Error, status = mended(w, err); status == 0 {
			return err
		}
		return s.serveForm(w, status, "login", form)
	}
	s.cfg.Cookies.Begin(w, secret, control.LongestSession)
	http.Redirect(w, r, form.Next, http.StatusSeeOther)
	return nil
}

func (s *Server) signOut(w http.ResponseWriter, r *http.Request) error {
	if err := s.cfg.Accounts.SignOut(r.Context(), s.cfg.Cookies.Secret(r)); err != nil {
		return err
	}
	s.cfg.Cookies.End(w)
	http.Redirect(w, r, access.SignInPath, http.StatusSeeOther)
	return nil
}

// errUsedLink answers the link of a setup that is over.
var errUsedLink = fmt.Errorf("%w: the link was used, or the process was started again since; what it printed at its last start has the one that is good", ErrNotFound)

func (s *Server) showSetup(w http.ResponseWriter, r *http.Request) error {
	form := setupForm{layout: s.frame(r, "The first admin"), Token: r.URL.Query().Get("token")}
	if !s.cfg.Accounts.Setup(form.Token) {
		return errUsedLink
	}
	return s.serveForm(w, http.StatusOK, "setup", form)
}

func (s *Server) setUp(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	form := setupForm{Name: r.PostForm.Get("name"), Token: r.PostForm.Get("token")}
	if !s.cfg.Accounts.Setup(form.Token) {
		return errUsedLink
	}
	password := r.PostForm.Get("password")
	err := errTwice
	if password == r.PostForm.Get("again") {
		err = s.cfg.Accounts.SetUp(r, form.Token, form.Name, password)
	}
	if err != nil {
		var status int
		if form.Error, status = mended(w, err); status == 0 {
			return err
		}
		form.layout = s.frame(r, "The first admin")
		return s.serveForm(w, status, "setup", form)
	}
	secret, err := s.cfg.Accounts.SignIn(r, form.Name, password)
	if err != nil {
		return err
	}
	s.cfg.Cookies.Begin(w, secret, control.LongestSession)
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

func (s *Server) showAccount(w http.ResponseWriter, r *http.Request) error {
	p, ok := s.who(r)
	if !ok {
		http.Redirect(w, r, access.SignInPath+"?next=%2Faccount", http.StatusSeeOther)
		return nil
	}
	return s.serveForm(w, http.StatusOK, "account", accountForm{layout: s.frame(r, "Account"), Role: p.Role.String(), Issuer: p.Issuer})
}

func (s *Server) changePassword(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	p, ok := s.who(r)
	if !ok {
		http.Redirect(w, r, access.SignInPath+"?next=%2Faccount", http.StatusSeeOther)
		return nil
	}
	password := r.PostForm.Get("password")
	err := errTwice
	if password == r.PostForm.Get("again") {
		err = s.cfg.Accounts.SetPassword(r, p.Name, r.PostForm.Get("old"), password)
	}
	if err != nil {
		form := accountForm{layout: s.frame(r, "Account"), Role: p.Role.String(), Issuer: p.Issuer}
		var status int
		if form.Error, status = mended(w, err); status == 0 {
			return err
		}
		if status == http.StatusUnauthorized {
			form.Error = "That is not your password."
		}
		return s.serveForm(w, status, "account", form)
	}
	s.cfg.Cookies.End(w)
	http.Redirect(w, r, access.SignInPath, http.StatusSeeOther)
	return nil
}
