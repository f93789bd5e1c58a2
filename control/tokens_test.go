package control_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/control"
)

func openTokens(t *testing.T, path string) *control.Tokens {
	t.Helper()
	return openStore(t, path).Tokens
}

// Tokens are beside the sensor keys in one file, and neither is the other.
func TestTokens(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	keys, tokens := openKeys(t, path), openTokens(t, path)
	key, err := keys.Add(t.Context(), lms)
	require.NoError(t, err)
	secret, err := tokens.Add(t.Context(), control.Token{Name: "trino", Role: control.Operator})
	require.NoError(t, err)
	require.Regexp(t, `^mrt_[A-Za-z0-9_-]{43}$`, secret)
	_, err = tokens.Add(t.Context(), control.Token{Name: "trino", Role: control.Operator})
	require.ErrorIs(t, err, control.ErrTokenExists)
	require.ErrorContains(t, err, "add token trino: there is a token of that name already: revoke that one, or choose another")
	for _, bad := range []string{"", "a b", "-a", strings.Repeat("a", 65)} {
		_, err = tokens.Add(t.Context(), control.Token{Name: bad, Role: control.Viewer})
		require.ErrorContains(t, err, "cannot name a token")
	}

	found, err := tokens.Lookup(t.Context(), secret)
	require.NoError(t, err)
	require.Equal(t, "trino", found.Name)
	require.Equal(t, control.Operator, found.Role)
	list, err := tokens.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, time.Now().UTC().Truncate(time.Hour), list[0].Used)
	list[0].Used = found.Used
	require.Equal(t, []control.Token{found}, list)
	_, err = tokens.Add(t.Context(), control.Token{Name: "nobody"})
	require.EqualError(t, err, "token nobody needs a role")
	_, err = tokens.Add(t.Context(), control.Token{Name: "late", Role: control.Viewer, Expires: time.Now().Add(-time.Second)})
	require.EqualError(t, err, "token late would have expired before it was made")
	short, err := tokens.Add(t.Context(), control.Token{Name: "short", Role: control.Viewer, Expires: time.Now().Add(300 * time.Millisecond)})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := tokens.Lookup(context.Background(), short)
		return errors.Is(err, control.ErrUnknownToken)
	}, 10*time.Second, 10*time.Millisecond, "it expires")
	for _, wrong := range []string{"", "mrt_", key, "mrt_" + key[4:], secret + "x", secret[:len(secret)-2] + "AA"} {
		_, err = tokens.Lookup(t.Context(), wrong)
		require.ErrorIs(t, err, control.ErrUnknownToken, wrong)
	}
	_, err = keys.Lookup(t.Context(), secret)
	require.ErrorIs(t, err, control.ErrUnknownKey)
	for _, file := range []string{path, path + "-wal"} {
		b, err := os.ReadFile(file)
		if !os.IsNotExist(err) {
			require.NoError(t, err)
		}
		require.NotContains(t, string(b), secret[4:], "the secret is in %s", file)
	}

	// The command line revokes while serve has the file open.
	cli := openTokens(t, path)
	require.NoError(t, cli.Revoke(t.Context(), "trino"))
	require.Eventually(t, func() bool {
		_, err := tokens.Lookup(context.Background(), secret)
		return err != nil
	}, 10*time.Second, 50*time.Millisecond, "a revoked token stops working")
	err = cli.Revoke(t.Context(), "trino")
	require.ErrorIs(t, err, control.ErrUnknownToken)
	require.ErrorContains(t, err, `there is none with the name "trino"`)
	_, err = tokens.Add(t.Context(), control.Token{Name: "trino", Role: control.Operator})
	require.NoError(t, err, "the name is free again")
}

// A token is bound to an account of a tenant, of whom there need be nothing, and never with the role of an admin.
func TestBoundTokens(t *testing.T) {
	t.Parallel()
	tokens := openTokens(t, filepath.Join(t.TempDir(), "keys.db"))
	secret, err := tokens.Add(t.Context(), control.Token{Name: "district", Role: control.Operator, Account: "deepthought"})
	require.NoError(t, err)
	found, err := tokens.Lookup(t.Context(), secret)
	require.NoError(t, err)
	require.Equal(t, "deepthought", found.Account)
	for _, c := range []struct {
		account string
		role    control.Role
		says    string
	}{
		{"deep thought", control.Viewer, `add token x: account "deep thought" is not a word: use 1 to 64 letters, digits, _ and -`},
		{"a:b", control.Viewer, `add token x: account "a:b" is not a word`},
		{"' OR 1=1", control.Viewer, "is not a word"},
		{strings.Repeat("a", 65), control.Viewer, "is not a word"},
		{"system", control.Viewer, "add token x: account system is that of the apps that serve all accounts: name the account of a tenant, or none"},
		{"deepthought", control.Admin, "add token x: an admin is not bound to an account: choose the role operator or less, or leave account deepthought out"},
	} {
		_, err := tokens.Add(t.Context(), control.Token{Name: "x", Role: c.role, Account: c.account})
		require.ErrorContains(t, err, c.says)
	}
	list, err := tokens.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1, "none of the others was added")
}
