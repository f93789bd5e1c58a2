package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/control"
	"millrace/control/access"
	"millrace/control/api"
)

const password = "correct horse battery"

// seeded is the file of a store with an admin, a user, a token and a sensor key: it takes a while to make, for its passwords.
var seeded = sync.OnceValues(func() (file []byte, err error) {
	dir, err := os.MkdirTemp("", "millrace-api-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path, ctx := filepath.Join(dir, "keys.db"), context.Background()
	store, err := control.Open(path)
	if err != nil {
		return nil, err
	}
	_, tokenErr := store.Tokens.Add(ctx, control.Token{Name: "ann", Role: control.Analyst})
	_, keyErr := store.Keys.Add(ctx, control.Key{Account: "acme", Env: "prod", SourceType: "EDGENUITY_LMS"})
	err = errors.Join(tokenErr, keyErr, store.Users.AddFirst(ctx, "root", password), store.Users.Add(ctx, control.User{Name: "ann", Role: control.Viewer}, password), store.Close())
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// storeOf is a store that is seeded.
func storeOf(t *testing.T) *control.Store {
	t.Helper()
	file, err := seeded()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "keys.db")
	require.NoError(t, os.WriteFile(path, file, 0o600))
	store, err := control.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return store
}

// into asks for something that is answered with a status, and decodes the answer.
func into[T any](t *testing.T, ask func(method, path, token, body string) (int, string), want int, method, path, body string) (out T) {
	t.Helper()
	status, text := ask(method, path, secret, body)
	require.Equal(t, want, status, "%s %s: %s", method, path, text)
	require.NoError(t, json.Unmarshal([]byte(text), &out), text)
	return out
}

// What is made is told once, in the answer to who asked for it, and is good from then on until it is ended. All of it is in the audit log, and no secret is.
func TestIdentities(t *testing.T) {
	t.Parallel()
	s := &service{store: storeOf(t)}
	ask := serve(t, s)
	store, ctx := s.store, t.Context()

	token := into[api.Secret](t, ask, 200, "POST", api.TokensPath, `{"who":"w","name":"district","role":"operator","account":"acme","expires":"2100-01-01T00:00:00Z"}`)
	found, err := store.Tokens.Lookup(ctx, token.Secret)
	require.NoError(t, err)
	require.Equal(t, "district", found.Name)
	require.Equal(t, "acme", found.Account)
	tokens := into[[]api.Token](t, ask, 200, "GET", api.TokensPath, "")
	require.Len(t, tokens, 2)
	require.Equal(t, "operator", tokens[1].Role)
	require.Equal(t, 2100, tokens[1].Expires.Year())
	require.Equal(t, api.Ended{Name: "district"}, into[api.Ended](t, ask, 200, "POST", api.TokensPath+"/district/revoke", `{"who":"w"}`))
	_, err = store.Tokens.Lookup(ctx, token.Secret)
	require.ErrorIs(t, err, control.ErrUnknownToken, "at once")

	key := into[api.Secret](t, ask, 200, "POST", api.KeysPath, `{"account":"globex","env":"prod","source_type":"EDGENUITY_LMS"}`)
	_, err = store.Keys.Lookup(ctx, key.Secret)
	require.NoError(t, err)
	keys := into[[]api.Key](t, ask, 200, "GET", api.KeysPath+"?account=globex", "")
	require.Len(t, keys, 1)
	require.Equal(t, key.ID, keys[0].ID)
	into[api.Ended](t, ask, 200, "POST", api.KeysPath+"/"+key.ID+"/revoke", "")
	_, err = store.Keys.Lookup(ctx, key.Secret)
	require.ErrorIs(t, err, control.ErrUnknownKey, "at once")

	bea := into[api.User](t, ask, 200, "POST", api.UsersPath, `{"name":"bea","role":"viewer","account":"acme","password":"`+password+`"}`)
	session, err := store.Users.SignIn(ctx, "bea", password)
	require.NoError(t, err)
	changed := into[api.User](t, ask, 200, "POST", api.UsersPath+"/bea/role", `{"role":"operator"}`)
	require.Equal(t, "operator", changed.Role)
	require.Greater(t, changed.Revision, bea.Revision)
	require.True(t, into[api.User](t, ask, 200, "POST", api.UsersPath+"/bea/disable", "").Disabled)
	_, err = store.Users.Session(ctx, session)
	require.ErrorIs(t, err, control.ErrUnknownSession)
	require.False(t, into[api.User](t, ask, 200, "POST", api.UsersPath+"/bea/enable", "").Disabled)
	const next = "another horse battery"
	is := into[api.User](t, ask, 200, "POST", api.UsersPath+"/bea/password", `{"password":"`+next+`"}`)
	_, err = store.Users.SignIn(ctx, "bea", next)
	require.NoError(t, err)
	require.Equal(t, is, into[api.User](t, ask, 200, "GET", api.UsersPath+"/bea", ""), "to sign in changes nothing of what is decided")
	users := into[[]api.ListedUser](t, ask, 200, "GET", api.UsersPath, "")
	require.Equal(t, []string{"ann", "bea", "root"}, []string{users[0].Name, users[1].Name, users[2].Name})
	require.NotZero(t, users[1].SignedIn)
	into[api.Ended](t, ask, 200, "POST", api.UsersPath+"/bea/delete", `{"who":"w"}`)

	require.Equal(t, api.Whoami{Name: "local", Role: "admin", Version: "1.2.3"}, into[api.Whoami](t, ask, 200, "GET", api.WhoamiPath, ""))
	_, text := ask("GET", api.WhoamiPath, bound, "")
	require.JSONEq(t, `{"name":"district","role":"operator","account":"acme","version":"1.2.3"}`, text)

	require.Equal(t, []string{
		"w admin add token district, operator of account acme: done", "w admin revoke token district: done",
		"local admin add sensor key globex:prod EDGENUITY_LMS " + key.ID + ": done", "local admin revoke sensor key " + key.ID + ": done",
		"local admin add user bea, viewer of account acme: done", "local admin set role bea, operator: done", "local admin disable user bea: done", "local admin enable user bea: done",
		"local admin set password bea: done", "w admin delete user bea: done",
	}, s.audit)
	for _, secret := range []string{token.Secret, key.Secret, password, next} {
		require.NotContains(t, strings.Join(s.audit, "\n"), secret)
		for _, path := range []string{api.TokensPath, api.KeysPath, api.UsersPath} {
			_, text := ask("GET", path, "right", "")
			require.NotContains(t, text, secret)
		}
	}
}

func TestIdentitiesThatAreRefused(t *testing.T) {
	t.Parallel()
	s := &service{store: storeOf(t)}
	ask := serve(t, s)
	for _, c := range []struct {
		path, body string
		status     int
		says       string
	}{
		{"/tokens", `{"name":"x"}`, 400, `role: there is no role \"\"; there are viewer, analyst, operator, admin`},
		{"/tokens", `{"name":"x y","role":"viewer"}`, 400, "cannot name a token"},
		{"/tokens", `{"name":"x","role":"viewer","account":"a b"}`, 400, "is not a word"},
		{"/tokens", `{"name":"x","role":"admin","account":"acme"}`, 400, "an admin is not bound to an account"},
		{"/tokens", `{"name":"x","role":"viewer","expires":"2001-01-01T00:00:00Z"}`, 400, "would have expired before it was made"},
		{"/tokens", `{"name":"x","role":"viewer","secret":"mine"}`, 400, "unknown field"},
		{"/tokens", `{"name":"ann","role":"viewer"}`, 409, "there is a token of that name already"},
		{"/tokens/none/revoke", ``, 404, "there is none with the name"},
		{"/tokens/ann/revoke", `{"name":"ann"}`, 400, "unknown field"},
		{"/users", `{"name":"x","role":"boss","password":"` + password + `"}`, 400, "there is no role"},
		{"/users", `{"name":"x","role":"viewer","password":"short"}`, 400, "a password has 10 characters or more"},
		{"/users", `{"name":"x y","role":"viewer","password":"` + password + `"}`, 400, "cannot name a user"},
		{"/users", `{"name":"x","role":"admin","account":"acme","password":"` + password + `"}`, 400, "an admin is not bound"},
		{"/users", `{"name":"ann","role":"viewer","password":"` + password + `"}`, 409, "there is a user of that name already"},
		{"/users/none/disable", ``, 404, "there is none with the name"},
		{"/users/ann/disable", `{"role":"admin"}`, 400, "role: this takes none"},
		{"/users/ann/role", `{"role":"admin","password":"` + password + `"}`, 400, "password: this takes none"},
		{"/users/ann/password", `{}`, 400, "a password has 10 characters or more"},
		{"/users/ann/explode", ``, 404, "not found"},
		{"/users/root/delete", ``, 409, "it is the last admin; make another one first"},
		{"/users/root/disable", ``, 409, "it is the last admin"},
		{"/users/root/role", `{"role":"viewer"}`, 409, "it is the last admin"},
		{"/keys", `{"account":"acme"}`, 400, "env is missing"},
		{"/keys", `{"account":"a c","env":"prod","source_type":"LMS"}`, 400, "is not a word"},
		{"/keys/none/revoke", ``, 404, "there is none with the id"},
	} {
		status, text := ask("POST", "/api/v1"+c.path, secret, c.body)
		require.Equal(t, c.status, status, "%s %s: %s", c.path, c.body, text)
		require.Contains(t, text, c.says)
		require.NotContains(t, text, password)
		for token, want := range map[string]int{"": 401, bound: 403} { // an operator who is bound to an account
			status, _ = ask("POST", "/api/v1"+c.path, token, c.body)
			require.Contains(t, []int{want, 404}, status, c.path)
		}
	}
	for _, path := range []string{api.TokensPath, api.UsersPath, api.UsersPath + "/ann", api.KeysPath} {
		status, text := ask("GET", path, bound, "")
		require.Equal(t, 403, status, path)
		require.Contains(t, text, "district is bound to account acme, and this is of the stack as a whole")
	}
	require.Contains(t, s.audit, "local admin add token ann, viewer: add token ann: there is a token of that name already: revoke that one, or choose another")
}

// Nobody gives away more than they have, whatever a route takes.
func TestNobodyGivesMoreThanTheyHave(t *testing.T) {
	t.Parallel()
	h, err := api.New(api.Config{Store: storeOf(t)})
	require.NoError(t, err)
	for _, c := range []struct {
		who     access.Principal
		role    string
		account string
		status  int
	}{
		{access.Principal{Name: "o", Role: control.Operator}, "operator", "", 200},
		{access.Principal{Name: "o", Role: control.Operator}, "admin", "", 403},
		{access.Principal{Name: "a", Role: control.Analyst}, "operator", "acme", 403},
		{access.Principal{Name: "b", Role: control.Operator, Account: "acme"}, "operator", "acme", 200},
		{access.Principal{Name: "b", Role: control.Operator, Account: "acme"}, "viewer", "", 403},
		{access.Principal{Name: "b", Role: control.Operator, Account: "acme"}, "viewer", "globex", 403},
		{access.Principal{Name: "c", Role: control.Admin}, "admin", "", 200},
	} {
		for path, body := range map[string]string{api.TokensPath: `{"name":"`, api.UsersPath: `{"password":"` + password + `","name":"`} {
			body += fmt.Sprintf(`%s-%s-%s","role":%q,"account":%q}`, c.who.Name, c.role, c.account, c.role, c.account)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(access.With(t.Context(), c.who), http.MethodPost, path, strings.NewReader(body)))
			require.Equal(t, c.status, w.Code, "%+v: %s", c, w.Body)
			require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(access.With(t.Context(), access.Principal{Name: "o", Role: control.Operator}), http.MethodPost, api.UsersPath+"/ann/role", strings.NewReader(`{"role":"admin"}`)))
	require.Equal(t, 403, w.Code)
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, api.Path, http.NoBody))
	require.Equal(t, 404, w.Code, "without a service there are no addresses of it")
}

// A user is changed by what was read of them.
func TestConditionsOfUsers(t *testing.T) {
	t.Parallel()
	ask := asks(t, &service{store: storeOf(t)})
	res := ask(http.MethodGet, api.UsersPath+"/ann", http.Header{})
	require.NoError(t, res.Body.Close())
	tag := res.Header.Get("ETag")
	require.Equal(t, 200, ask(http.MethodPost, api.UsersPath+"/ann/disable", http.Header{"If-Match": {tag}}).StatusCode)
	res = ask(http.MethodPost, api.UsersPath+"/ann/enable", http.Header{"If-Match": {tag}})
	require.Equal(t, 412, res.StatusCode)
	var p struct {
		Detail  string
		Present api.User
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&p))
	require.True(t, p.Present.Disabled)
	require.Equal(t, api.Tag(p.Present.Revision), res.Header.Get("ETag"))
	require.Contains(t, p.Detail, "user ann has changed since it was read")
	require.Equal(t, 200, ask(http.MethodPost, api.UsersPath+"/ann/enable", http.Header{"If-Match": {res.Header.Get("ETag")}}).StatusCode)
	require.Equal(t, 400, ask(http.MethodPost, api.TokensPath+"/ann/revoke", http.Header{"If-Match": {tag}}).StatusCode, "a token does not change")
}

// A list that is longer than an answer goes on after its last one.
func TestPages(t *testing.T) {
	t.Parallel()
	store := storeOf(t)
	const more = api.ListPage + 5
	for i := range more {
		_, err := store.Tokens.Add(t.Context(), control.Token{Name: fmt.Sprintf("t%05d", more-i), Role: control.Viewer})
		require.NoError(t, err)
	}
	ask := serve(t, &service{store: store})
	first := into[[]api.Token](t, ask, 200, "GET", api.TokensPath, "")
	require.Len(t, first, api.ListPage)
	rest := into[[]api.Token](t, ask, 200, "GET", api.TokensPath+"?after="+url.QueryEscape(first[len(first)-1].Name), "")
	names := []string{}
	for _, token := range append(first, rest...) {
		names = append(names, token.Name)
	}
	require.Len(t, names, more+1)
	require.True(t, slices.IsSorted(names))
	require.Empty(t, into[[]api.Token](t, ask, 200, "GET", api.TokensPath+"?after=zz", ""))

	_, err := store.Keys.Add(t.Context(), control.Key{Account: "acme", Env: "prod", SourceType: "SIS"})
	require.NoError(t, err)
	keys := into[[]api.Key](t, ask, 200, "GET", api.KeysPath, "")
	require.Len(t, keys, 2)
	require.Equal(t, keys[1:], into[[]api.Key](t, ask, 200, "GET", api.KeysPath+"?after="+url.QueryEscape("acme/prod/EDGENUITY_LMS/"+keys[0].ID), ""))
}

// Who changes too much waits, and is told how long. Others do not.
func TestTooManyChanges(t *testing.T) {
	t.Parallel()
	h, err := api.New(api.Config{Store: storeOf(t)})
	require.NoError(t, err)
	change := func(p access.Principal) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(access.With(t.Context(), p), http.MethodPost, api.KeysPath, strings.NewReader(`{}`)))
		return w
	}
	for range 1000 {
		require.Equal(t, 400, change(access.Principal{Name: "local", Role: control.Admin, Local: true}).Code)
	}
	busy := access.Principal{Name: "busy", Role: control.Admin}
	refused := func() bool { return change(busy).Code == http.StatusTooManyRequests }
	for n := 0; !refused(); n++ {
		require.Less(t, n, 10_000)
	}
	w := change(busy)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
	require.Contains(t, w.Body.String(), "too many changes of tokens, users and keys; try again in 1 s")
	require.Equal(t, 400, change(access.Principal{Name: "other", Role: control.Admin}).Code)
}

// What is made by a token that expires ends no later: a token then, and a user, who does not end, is not made.
func TestNothingOutlivesItsMaker(t *testing.T) {
	t.Parallel()
	store := storeOf(t)
	h, err := api.New(api.Config{Store: store})
	require.NoError(t, err)
	ends := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	ask := func(path, body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
		h.ServeHTTP(w, r.WithContext(access.With(r.Context(), access.Principal{Name: "temp", Role: control.Admin, Expires: ends})))
		return w
	}
	for name, expires := range map[string]time.Time{"never": {}, "later": ends.Add(time.Second), "sooner": ends.Add(-time.Second)} {
		body, err := json.Marshal(api.TokenAsk{Name: name, Role: "admin", Expires: expires})
		require.NoError(t, err)
		w := ask(api.TokensPath, string(body))
		require.Equal(t, 200, w.Code, w.Body)
		want := ends
		if name == "sooner" {
			want = expires
		}
		var made api.Secret
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &made))
		require.Equal(t, want, made.Expires, name)
		found, err := store.Tokens.Lookup(t.Context(), made.Secret)
		require.NoError(t, err)
		require.Equal(t, want, found.Expires, name)
	}
	for path, body := range map[string]string{
		"": `{"name":"eve","role":"viewer","password":"` + password + `"}`, "/ann/role": `{"role":"admin"}`, "/ann/password": `{"password":"` + password + `"}`, "/ann/enable": "",
	} {
		w := ask(api.UsersPath+path, body)
		require.Equal(t, 403, w.Code, "%s: %s", path, w.Body)
		require.Contains(t, w.Body.String(), "token temp ends at "+ends.Format(time.RFC3339)+", and who signs in here does not")
	}
	require.Equal(t, 200, ask(api.UsersPath+"/ann/disable", "").Code, "that gives nothing")
}
