package web_test

import (
	"cmp"
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/control/access"
	"millrace/web"
)

// marks are values that name the account that they were asked for.
func marks() web.Config {
	of := func(account string) string { return "of-" + cmp.Or(account, "everybody") }
	return web.Config{
		Now: time.Now,
		Status: func(_ context.Context, account string) (web.Status, error) {
			return web.Status{
				Account: account, Version: "1.0.0", Jobs: []web.Job{{Name: of(account), State: "RUNNING"}},
				Tables: []web.Table{{Name: "quiz", Rows: new(int64(1)), DeadLetters: new(int64(0))}, {Name: "x", Rows: new(int64(1)), DeadLetters: new(int64(0))}},
			}, nil
		},
		Rows: func(_ context.Context, account, _ string, _ int) ([]string, [][]string, error) {
			return []string{"id"}, [][]string{{of(account)}}, nil
		},
		DeadLetters: func(_ context.Context, account string, _ int) ([]web.DeadLetter, error) {
			return []web.DeadLetter{{Record: of(account), Reasons: []string{of(account)}}}, nil
		},
	}
}

// as has somebody ask who is bound to an account, or to none.
func as(h http.Handler, account string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(access.With(r.Context(), access.Principal{Name: "x", Account: account})))
	})
}

var everybody = []string{"", "acme", "globex"}

// Who is bound to an account is shown its values, whoever has looked before; the others' are nowhere on the page.
func TestPagesOfAnAccount(t *testing.T) {
	t.Parallel()
	s := newServer(t, marks())
	for range 2 {
		for _, account := range everybody {
			for _, target := range []string{"/", "/?table=x", "/tables/quiz", "/api/v1/status"} {
				w := page(as(s, account), target)
				require.Equal(t, http.StatusOK, w.Code)
				onlyOf(t, account, w.Body.String(), true)
			}
		}
	}
	require.Contains(t, page(as(s, "acme"), "/").Body.String(), "The ledger is of all accounts together.")
}

// onlyOf checks that a text has nothing that is of other accounts.
func onlyOf(t *testing.T, account, text string, has bool) {
	t.Helper()
	if has {
		require.Contains(t, text, "of-"+cmp.Or(account, "everybody"))
	}
	for _, other := range everybody {
		if other != account {
			require.NotContains(t, text, "of-"+cmp.Or(other, "everybody"))
		}
	}
}

// A stream is that of an account, whatever somebody else calls theirs.
func TestStreamsOfAnAccount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, marks())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		readers := map[string][]*reader{}
		var leaves []func()
		var gone []chan struct{}
		for _, topic := range []string{"overview:quiz", "table:quiz", "overview:quiz:acme", "overview::globex", "overview:x"} {
			for _, account := range everybody {
				r, leave, done := open(t, as(s, account), "/events?topics="+topic, "")
				readers[account] = append(readers[account], r)
				leaves, gone = append(leaves, leave), append(gone, done)
			}
		}
		time.Sleep(3 * time.Second) // of the bubble's time
		synctest.Wait()
		for account, all := range readers {
			for _, r := range all {
				pushes, _ := r.messages()
				require.NotEmpty(t, pushes)
				for i, m := range pushes {
					onlyOf(t, account, m.data, i == 0)
				}
			}
		}
		for i, leave := range leaves {
			leave()
			<-gone[i]
		}
		cancel()
		require.NoError(t, <-ended)
	})
}

// However many accounts look, those that looked last are remembered.
func TestManyAccounts(t *testing.T) {
	t.Parallel()
	calls := map[string]int{}
	cfg := marks()
	status, now := cfg.Status, noon
	cfg.Now = func() time.Time { return now }
	cfg.Status = func(ctx context.Context, account string) (web.Status, error) {
		calls[account]++
		return status(ctx, account)
	}
	s := newServer(t, cfg)
	ask := func(account string) {
		w := httptest.NewRecorder()
		as(s, account).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/status", http.NoBody))
		require.Equal(t, http.StatusOK, w.Code)
	}
	ask("")
	for i := range 40 {
		ask("account" + string(rune('A'+i)))
	}
	ask("")
	ask("account" + string(rune('A'+39)))
	ask("accountA")
	require.Equal(t, []int{1, 1, 2}, []int{calls[""], calls["account"+string(rune('A'+39))], calls["accountA"]})
}
