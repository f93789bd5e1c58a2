package control

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func openUsers(t *testing.T, path string) *Users {
	t.Helper()
	s, err := Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s.Users
}

const good = "correct horse battery"

func TestUsers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	u, other := openUsers(t, path), openUsers(t, path)
	ctx := t.Context()
	require.ErrorIs(t, u.Add(ctx, User{Name: "an n", Role: Viewer}, good), ErrRefused)
	require.ErrorContains(t, u.Add(ctx, User{Name: "ann", Role: Viewer}, "short"), "a password has 10 characters or more")
	require.ErrorContains(t, u.Add(ctx, User{Name: "ann", Role: Viewer}, strings.Repeat("x", 1025)), "1024 bytes or less")
	require.ErrorContains(t, u.Add(ctx, User{Name: "ann", Role: 0}, good), "needs a role")

	// The first one is an admin, and two who try at once are not both.
	var both sync.WaitGroup
	errs := make([]error, 2)
	for i, x := range []*Users{u, other} {
		both.Go(func() { errs[i] = x.AddFirst(ctx, fmt.Sprintf("admin%d", i), good) })
	}
	both.Wait()
	require.True(t, (errs[0] == nil) != (errs[1] == nil), "%v", errs)
	all, err := u.List(ctx)
	require.NoError(t, err)
	require.Len(t, all, 1)
	admin := all[0].Name
	require.Equal(t, Admin, all[0].Role)
	require.Zero(t, all[0].SignedIn)

	require.NoError(t, u.Add(ctx, User{Name: "ann", Role: Operator}, good))
	require.ErrorIs(t, u.Add(ctx, User{Name: "ann", Role: Viewer}, good), ErrUserExists)
	for _, wrong := range [][2]string{{"ann", "wrong password"}, {"nobody", good}, {"", ""}, {"ann", strings.Repeat("x", 5000)}} {
		_, err := u.SignIn(ctx, wrong[0], wrong[1])
		require.Equal(t, ErrWrongPassword, err, "%q", wrong)
	}
	secret, err := u.SignIn(ctx, "ann", good)
	require.NoError(t, err)
	for _, x := range []*Users{u, other} {
		who, err := x.Session(ctx, secret)
		require.NoError(t, err)
		require.Equal(t, "ann", who.Name)
		require.Equal(t, Operator, who.Role)
	}
	_, err = u.Session(ctx, "mrs_"+strings.Repeat("A", 43))
	require.Equal(t, ErrUnknownSession, err)
	require.NoError(t, u.SignOut(ctx, secret))
	require.NoError(t, u.SignOut(ctx, secret))
	_, err = u.Session(ctx, secret)
	require.Equal(t, ErrUnknownSession, err)

	// What ends sessions: another password, being disabled, being deleted. A role counts in those that there are.
	signIn := func(password string) string {
		t.Helper()
		secret, err := u.SignIn(ctx, "ann", password)
		require.NoError(t, err)
		_, err = u.Session(ctx, secret)
		require.NoError(t, err)
		return secret
	}
	ended := func(secret string) {
		t.Helper()
		_, err := u.Session(ctx, secret)
		require.Equal(t, ErrUnknownSession, err)
	}
	secret = signIn(good)
	require.NoError(t, u.SetPassword(ctx, "ann", good+" staple", nil))
	ended(secret)
	require.Equal(t, ErrWrongPassword, u.Check(ctx, "ann", good))
	secret = signIn(good + " staple")
	require.NoError(t, u.Disable(ctx, "ann", nil))
	ended(secret)
	require.Equal(t, ErrWrongPassword, u.Check(ctx, "ann", good+" staple"), "it does not tell that the password is right")
	require.NoError(t, u.Enable(ctx, "ann", nil))
	secret = signIn(good + " staple")
	require.NoError(t, u.Delete(ctx, "ann", nil))
	ended(secret)

	// There is an admin as long as there is a user.
	for _, err := range []error{u.Delete(ctx, admin, nil), u.Disable(ctx, admin, nil), u.SetRole(ctx, admin, Operator, nil)} {
		require.ErrorIs(t, err, ErrRefused)
		require.ErrorContains(t, err, "it is the last admin; make another one first")
	}
	require.NoError(t, u.Add(ctx, User{Name: "second", Role: Admin}, good))

	// Who is bound to an account is no admin.
	require.ErrorIs(t, u.Add(ctx, User{Name: "bound", Role: Admin, Account: "acme"}, good), ErrRefused)
	require.ErrorIs(t, u.Add(ctx, User{Name: "bound", Role: Viewer, Account: "a b"}, good), ErrRefused)
	require.NoError(t, u.Add(ctx, User{Name: "bound", Role: Viewer, Account: "acme"}, good))
	require.ErrorContains(t, u.SetRole(ctx, "bound", Admin, nil), "an admin is not bound to an account")
	require.NoError(t, u.SetRole(ctx, "bound", Operator, nil))
	secret, err = u.SignIn(ctx, "bound", good)
	require.NoError(t, err)
	bound, err := other.Session(ctx, secret)
	require.NoError(t, err)
	require.Equal(t, "acme", bound.Account)
	require.NoError(t, u.Delete(ctx, "bound", nil))
	require.NoError(t, u.SetRole(ctx, admin, Viewer, nil))
	require.ErrorIs(t, u.Delete(ctx, "second", nil), ErrRefused)
	require.ErrorIs(t, u.Enable(ctx, "ann", nil), ErrUnknownUser)
	require.ErrorIs(t, u.AddFirst(ctx, "third", good), ErrRefused)
}

// A session ends when it is not used, and at last in any case.
func TestSessionsExpire(t *testing.T) {
	t.Parallel()
	u := openUsers(t, filepath.Join(t.TempDir(), "keys.db"))
	now := time.Now()
	u.now = func() time.Time { return now }
	require.NoError(t, u.AddFirst(t.Context(), "ann", good))
	begin := func() string {
		secret, err := u.SignIn(t.Context(), "ann", good)
		require.NoError(t, err)
		return secret
	}
	idle, busy := begin(), begin()
	for range 15 {
		now = now.Add(11 * time.Hour)
		_, err := u.Session(t.Context(), busy)
		require.NoError(t, err)
	}
	_, err := u.Session(t.Context(), idle)
	require.Equal(t, ErrUnknownSession, err)
	now = now.Add(4 * time.Hour)
	_, err = u.Session(t.Context(), busy)
	require.Equal(t, ErrUnknownSession, err, "after a week")
	begin()
	var left int
	require.NoError(t, u.db.QueryRowContext(t.Context(), "SELECT count(*) FROM sessions").Scan(&left))
	require.Equal(t, 1, left, "what has ended goes")
}

func TestPasswordHashes(t *testing.T) {
	t.Parallel()
	hash := hashPassword(good)
	require.Regexp(t, `^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`, hash)
	require.NotEqual(t, hash, hashPassword(good), "each has a salt of its own")
	ok, old, err := matches(good, hash)
	require.NoError(t, err)
	require.True(t, ok)
	require.False(t, old)
	ok, old, err = matches(good+"!", hash)
	require.NoError(t, err)
	require.False(t, ok || old)
	_, old, err = matches("password", "$argon2id$v=19$m=65536,t=2,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b27Jpp0KNhR8V0d")
	require.NoError(t, err)
	require.True(t, old)
	for _, bad := range []string{
		"", "plain", "$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b27Jpp0KNhR8V0d", "$argon2id$v=16$m=19456,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b27Jpp0KNhR8V0d",
		"$argon2id$v=19$m=4294967295,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b27Jpp0KNhR8V0d", "$argon2id$v=19$m=19456,t=2,p=1$$", "$argon2id$v=19$m=19456,t=0,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b27Jpp0KNhR8V0d",
		"$argon2id$v=19$m=19456,t=2,p=1x$c29tZXNhbHQ$RdescudvJCsgt3ub+b27Jpp0KNhR8V0d", hash + "$",
	} {
		_, _, err := matches(good, bad)
		require.ErrorIs(t, err, errHash, bad)
	}
}

// A hash that costs less than new ones is made anew when its password is shown.
func TestOldHashesAreMadeAnew(t *testing.T) {
	t.Parallel()
	u := openUsers(t, filepath.Join(t.TempDir(), "keys.db"))
	require.NoError(t, u.AddFirst(t.Context(), "ann", good))
	cheap := cost{memory: 64, time: 1, threads: 1}
	salt := []byte("somesaltsomesalt")
	_, err := u.db.ExecContext(t.Context(), `UPDATE users SET password = ?`, encodeHash(cheap, salt, argon2id(good, salt, cheap, hashBytes)))
	require.NoError(t, err)
	_, err = u.SignIn(t.Context(), "ann", good)
	require.NoError(t, err)
	var hash string
	require.NoError(t, u.db.QueryRowContext(t.Context(), `SELECT password FROM users`).Scan(&hash))
	require.Contains(t, hash, "m=19456,t=2,p=1")
	require.NoError(t, u.Check(t.Context(), "ann", good))
}
