package control_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/control"
)

var lms = control.Key{Account: "deepthought", Env: "deepthought3", SourceType: "EDGENUITY_LMS"}

func openKeys(t *testing.T, path string) *control.Keys {
	t.Helper()
	return openStore(t, path).Keys
}

func TestKeyIsFoundByItsSecret(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys #1 ?.db")
	store := openStore(t, path)
	keys := store.Keys
	before := time.Now().Truncate(time.Microsecond)
	secret, err := keys.Add(t.Context(), lms)
	require.NoError(t, err)
	require.Regexp(t, `^mrk_[A-Za-z0-9_-]{43}$`, secret)
	another, err := keys.Add(t.Context(), lms)
	require.NoError(t, err)
	require.NotEqual(t, secret, another)

	for range 2 { // read, then from memory
		key, err := keys.Lookup(t.Context(), secret)
		require.NoError(t, err)
		require.Equal(t, []string{lms.Account, lms.Env, lms.SourceType}, []string{key.Account, key.Env, key.SourceType})
		require.NotEmpty(t, key.ID)
		require.False(t, key.Created.Before(before))
	}
	wrong := secret[:len(secret)-2] + "AA"
	for _, secret := range []string{"", "mrk_", wrong, strings.ToUpper(secret), secret + "x", "Bearer " + secret, strings.TrimPrefix(secret, "mrk_")} {
		_, err := keys.Lookup(t.Context(), secret)
		require.ErrorIs(t, err, control.ErrUnknownKey, secret)
	}

	list, err := keys.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.NoError(t, store.Close())
	_, err = os.Stat(path)
	require.NoError(t, err, "the file has the name that it was given")
	for _, file := range []string{path, path + "-wal"} {
		b, err := os.ReadFile(file)
		if !os.IsNotExist(err) {
			require.NoError(t, err)
		}
		require.NotContains(t, string(b), secret[4:], "the secret is in %s", file)
	}

	key, err := openKeys(t, path).Lookup(t.Context(), secret)
	require.NoError(t, err)
	require.Contains(t, list, key)
}

// The command line adds and revokes keys while serve has the file open.
func TestKeysOfAnotherProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	serve, cli := openKeys(t, path), openKeys(t, path)
	_, err := serve.Lookup(t.Context(), "mrk_"+strings.Repeat("A", 43)) // memory is filled now
	require.ErrorIs(t, err, control.ErrUnknownKey)

	var secret string
	for range 3 {
		secret, err = cli.Add(t.Context(), lms)
		require.NoError(t, err)
		_, err := serve.Lookup(t.Context(), secret)
		require.NoError(t, err, "a new key works at once")
	}
	key, err := serve.Lookup(t.Context(), secret)
	require.NoError(t, err)
	require.NoError(t, cli.Revoke(t.Context(), key.ID))
	require.Eventually(t, func() bool {
		_, err := serve.Lookup(context.Background(), secret)
		return err != nil
	}, 10*time.Second, 50*time.Millisecond, "a revoked key stops working")
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	keys := openKeys(t, filepath.Join(t.TempDir(), "keys.db"))
	secret, err := keys.Add(t.Context(), lms)
	require.NoError(t, err)
	key, err := keys.Lookup(t.Context(), secret)
	require.NoError(t, err)
	require.NoError(t, keys.Revoke(t.Context(), key.ID))
	_, err = keys.Lookup(t.Context(), secret)
	require.ErrorIs(t, err, control.ErrUnknownKey, "in this process it stops at once")
	err = keys.Revoke(t.Context(), key.ID)
	require.ErrorIs(t, err, control.ErrUnknownKey)
	require.ErrorContains(t, err, `there is none with the id "`+key.ID+`"`)
}

// Guesses wait for one another, and neither keep a known key waiting nor make a new one unknown.
func TestGuesses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	keys, cli := openKeys(t, path), openKeys(t, path)
	known, err := keys.Add(t.Context(), lms)
	require.NoError(t, err)
	_, err = keys.Lookup(t.Context(), known)
	require.NoError(t, err)

	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	guesses := make(chan int, 50)
	for range cap(guesses) {
		group.Go(func() {
			n := 0
			for ; ctx.Err() == nil; n++ {
				_, _ = keys.Lookup(ctx, "mrk_"+strings.Repeat("B", 43))
			}
			guesses <- n
		})
	}
	began := time.Now()
	for range 1000 {
		_, err := keys.Lookup(t.Context(), known)
		require.NoError(t, err)
	}
	added, err := cli.Add(t.Context(), lms)
	require.NoError(t, err)
	_, err = keys.Lookup(t.Context(), added)
	require.NoError(t, err)
	stop()
	group.Wait()
	took := time.Since(began)
	most := 2 + int(took/(100*time.Millisecond))
	for range cap(guesses) {
		require.LessOrEqual(t, <-guesses, most, "guesses in %v", took)
	}
}

func TestBadKeys(t *testing.T) {
	t.Parallel()
	keys := openKeys(t, filepath.Join(t.TempDir(), "keys.db"))
	for want, key := range map[string]control.Key{
		"account is missing":           {Env: "e", SourceType: "S"},
		"env is missing":               {Account: "a", SourceType: "S"},
		"source type is missing":       {Account: "a", Env: "e"},
		`account "a b" is not a word`:  {Account: "a b", Env: "e", SourceType: "S"},
		`env "../e" is not a word`:     {Account: "a", Env: "../e", SourceType: "S"},
		`source type "S\n" is not a w`: {Account: "a", Env: "e", SourceType: "S\n"},
		`account "-a" is not a word`:   {Account: "-a", Env: "e", SourceType: "S"},
		"use 1 to 64 letters":          {Account: strings.Repeat("a", 65), Env: "e", SourceType: "S"},
	} {
		_, err := keys.Add(t.Context(), key)
		require.ErrorContains(t, err, want)
	}
	list, err := keys.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, list)
}

// What a request costs whose key is in memory.
func BenchmarkLookup(b *testing.B) {
	store, err := control.Open(filepath.Join(b.TempDir(), "keys.db"))
	require.NoError(b, err)
	defer store.Close()
	keys := store.Keys
	secret, err := keys.Add(b.Context(), lms)
	require.NoError(b, err)
	for b.Loop() {
		if _, err := keys.Lookup(b.Context(), secret); err != nil {
			b.Fatal(err)
		}
	}
}
