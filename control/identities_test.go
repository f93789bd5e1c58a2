package control

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	provider = "https://login.example.edu"
	other    = "https://login.example.org"
)

// ann is somebody whom the provider knows.
func ann(role Role) Identity {
	return Identity{Issuer: provider, Subject: "248289761001", Names: []string{"ann@example.edu"}, Role: role}
}

// Who is identified is who has the subject of the issuer, whatever they are called, and has the role that the provider says last.
func TestIdentities(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	u, second := openUsers(t, path), openUsers(t, path)
	ctx := t.Context()
	first, err := u.SignInAs(ctx, ann(Analyst))
	require.NoError(t, err)
	require.Zero(t, first.Was)
	require.Equal(t, "ann@example.edu", first.User.Name)
	who, err := second.Session(ctx, first.Secret)
	require.NoError(t, err)
	require.Equal(t, User{Name: "ann@example.edu", Role: Analyst, Issuer: provider}, who)

	id := ann(Operator)
	id.Names = []string{"ann.smith"}
	again, err := u.SignInAs(ctx, id)
	require.NoError(t, err)
	require.Equal(t, Analyst, again.Was)
	require.Equal(t, "ann@example.edu", again.User.Name, "who is known keeps their name")
	for _, secret := range []string{first.Secret, again.Secret} {
		who, err = u.Session(ctx, secret)
		require.NoError(t, err)
		require.Equal(t, Operator, who.Role, "a role counts in all sessions")
	}
	all, err := u.List(ctx)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, []string{provider, "248289761001"}, []string{all[0].Issuer, all[0].Subject})
	require.NotZero(t, all[0].SignedIn)

	// The same subject of another issuer is somebody else, and so is another one of the same.
	for _, id := range []Identity{
		{Issuer: other, Subject: "248289761001", Names: []string{"ann@example.edu"}, Role: Admin},
		{Issuer: provider, Subject: "248289761002", Names: []string{"ann@example.edu"}, Role: Admin},
	} {
		_, err = u.SignInAs(ctx, id)
		require.ErrorIs(t, err, ErrRefused)
		require.ErrorContains(t, err, "somebody else of "+provider+" is the user ann@example.edu here")
	}
	// No password is theirs, and none is given to them.
	for _, password := range []string{"", good} {
		_, err = u.SignIn(ctx, "ann@example.edu", password)
		require.Equal(t, ErrWrongPassword, err)
	}
	for _, err := range []error{u.SetPassword(ctx, "ann@example.edu", good, nil), u.SetRole(ctx, "ann@example.edu", Admin, nil)} {
		require.ErrorIs(t, err, ErrRefused)
		require.ErrorContains(t, err, provider+" says their role and has their password")
	}

	// Who is disabled stays so, whatever the provider says; who has no role any more is signed out.
	require.NoError(t, u.SignOutAs(ctx, provider, "248289761001"))
	require.NoError(t, u.SignOutAs(ctx, provider, "nobody"))
	_, err = u.Session(ctx, again.Secret)
	require.Equal(t, ErrUnknownSession, err)
	again, err = u.SignInAs(ctx, ann(Operator))
	require.NoError(t, err)
	require.NoError(t, u.Disable(ctx, "ann@example.edu", nil))
	_, err = u.Session(ctx, again.Secret)
	require.Equal(t, ErrUnknownSession, err)
	_, err = u.SignInAs(ctx, ann(Admin))
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "'millrace user enable ann@example.edu'")
	all, err = u.List(ctx)
	require.NoError(t, err)
	require.Equal(t, Operator, all[0].Role)
	require.NoError(t, u.Enable(ctx, "ann@example.edu", nil))
	_, err = u.SignInAs(ctx, ann(Admin))
	require.NoError(t, err)
	in, err := u.SignInAs(ctx, ann(Viewer))
	require.NoError(t, err, "the last admin too has the role that the provider says")
	require.Equal(t, Admin, in.Was)
}

// Somebody is bound to the account that the provider says now, in their other sessions too.
func TestIdentitiesOfAnAccount(t *testing.T) {
	t.Parallel()
	u := openUsers(t, filepath.Join(t.TempDir(), "keys.db"))
	ctx := t.Context()
	id := ann(Analyst)
	var sessions []string
	revision := int64(0)
	for _, account := range []string{"acme", "acme", "globex", ""} {
		id.Account = account
		in, err := u.SignInAs(ctx, id)
		require.NoError(t, err)
		require.Equal(t, account, in.User.Account)
		sessions = append(sessions, in.Secret)
		for _, s := range sessions {
			who, err := u.Session(ctx, s)
			require.NoError(t, err)
			require.Equal(t, account, who.Account)
		}
		is, err := u.User(ctx, in.User.Name)
		require.NoError(t, err)
		if account == in.WasOf && revision > 0 {
			require.Equal(t, revision, is.Revision, "nothing has changed")
		} else {
			require.NotEqual(t, revision, is.Revision)
		}
		revision = is.Revision
	}
	id.Account, id.Role = "acme", Admin
	_, err := u.SignInAs(ctx, id)
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "an admin is not bound to an account")
}

// A user with a password is never taken over, and what cannot be a name is none.
func TestIdentitiesTakeNobodyOver(t *testing.T) {
	t.Parallel()
	u := openUsers(t, filepath.Join(t.TempDir(), "keys.db"))
	ctx := t.Context()
	require.NoError(t, u.AddFirst(ctx, "ann", good))
	session, err := u.SignIn(ctx, "ann", good)
	require.NoError(t, err)
	id := ann(Viewer)
	id.Names = []string{"ann"}
	_, err = u.SignInAs(ctx, id)
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "there is a user ann here who signs in with a password, and is not taken for you")
	who, err := u.Session(ctx, session)
	require.NoError(t, err)
	require.Equal(t, User{Name: "ann", Role: Admin}, who)
	require.NoError(t, u.Check(ctx, "ann", good))

	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"Zoë Müller", "", "zoe@example.edu", "248"}, "zoe@example.edu"},
		{[]string{"zoe\nadmin", " zoe", "-zoe", "@zoe", "z/oe"}, ""},
		{nil, ""},
	} {
		in, err := u.SignInAs(ctx, Identity{Issuer: provider, Subject: "zoe", Names: c.names, Role: Viewer})
		if c.want == "" {
			require.ErrorIs(t, err, ErrRefused, "%q", c.names)
			require.ErrorContains(t, err, "no name of you that can be one here")
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, in.User.Name)
		require.NoError(t, u.Delete(ctx, c.want, nil))
	}
	for _, id := range []Identity{{Issuer: provider, Names: []string{"x"}, Role: Viewer}, {Subject: "x", Names: []string{"x"}, Role: Viewer}, ann(0), ann(Admin + 1)} {
		_, err = u.SignInAs(ctx, id)
		require.ErrorIs(t, err, ErrRefused)
	}
}
