package lake_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/lake"
	"millrace/lake/laketest"
	"millrace/plan"
)

// A catalogue that cannot be used is named, with what to do.
func TestCatalogRefuses(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	refuse := func(status int, kind, message string) http.HandlerFunc {
		return answer(status, fmt.Sprintf(`{"error":{"message":%q,"type":%q,"code":%d}}`, message, kind, status))
	}
	const s3 = `{"defaults":{},"overrides":{"s3.endpoint":"http://store:9000","s3.region":"eu-central-1"}}`
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		change  func(*lake.Config)
		want    []string
	}{
		{
			"wrong token", refuse(401, "NotAuthorizedException", "token expired"), func(c *lake.Config) { c.Catalog.Token = "secret" },
			[]string{"refuses: NotAuthorizedException: token expired: check the token or credential, and what it may do"},
		},
		{"wrong credential", func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/oauth/tokens") {
				answer(400, `{"error":"invalid_client","error_description":"no such client"}`)(w, r)
			}
		}, func(c *lake.Config) { c.Catalog.Credential = "me:secret" }, []string{"refuses: ", "invalid_client: no such client: check the token or credential"}},
		{"forbidden", refuse(403, "ForbiddenException", "not you"), nil, []string{"refuses: ForbiddenException: not you"}},
		{
			"no such warehouse", refuse(400, "NotFoundException", "Unable to find warehouse x"), func(c *lake.Config) { c.Catalog.Warehouse = "x" },
			[]string{"Unable to find warehouse x", `it may have no warehouse "x"; give one that it has`},
		},
		{"no catalogue", answer(200, "<html>"), nil, []string{"it answers, but not as an Iceberg REST catalogue does; give the address before its /v1/config"}},
		{"no catalogue there", answer(404, "not found"), nil, []string{"not as an Iceberg REST catalogue does"}},
		{"cut off", func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/config") {
				answer(200, `{}`)(w, r)
				return
			}
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(`{"defaults":`))
		}, nil, []string{"the lake's server is not available: catalogue ", "unexpected EOF"}},
		{"busy", answer(503, ""), nil, []string{"the lake's server is not available: catalogue ", "start it, or give the address that it has"}},
		{"busy behind a proxy", answer(502, "<html>"), nil, []string{"the lake's server is not available: catalogue ", ": 502 Bad Gateway: start it"}},
		{"too much asked", answer(429, ""), nil, []string{"the lake's server is not available: catalogue ", ": 429 Too Many Requests: start it"}},
		{
			"another S3 endpoint", answer(200, s3), func(c *lake.Config) { c.Warehouse, c.S3.Endpoint = "s3://lake/x", "http://127.0.0.1:9000" },
			[]string{"prescribes endpoint http://store:9000 for S3 (s3.endpoint), and http://127.0.0.1:9000 is given: leave that out, or have the catalogue changed"},
		},
		{
			"another S3 region", answer(200, s3), func(c *lake.Config) { c.Warehouse, c.S3.Region = "s3://lake/x", "us-east-1" },
			[]string{"prescribes region eu-central-1 for S3 (s3.region), and us-east-1 is given"},
		},
		{"two secrets", answer(200, `{}`), func(c *lake.Config) { c.Catalog.Token, c.Catalog.Credential = "a", "b" }, []string{"leave one out"}},
		{"a bad namespace", answer(200, `{}`), func(c *lake.Config) { c.Catalog.Namespace = "a..b" }, []string{`"" cannot name a namespace`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(c.handler)
			t.Cleanup(server.Close)
			cfg := lake.Config{Dir: t.TempDir(), Catalog: lake.REST{URI: server.URL + "/iceberg"}}
			if c.change != nil {
				c.change(&cfg)
			}
			_, err := lake.Open(context.Background(), cfg)
			require.Error(t, err)
			if strings.Contains(err.Error(), "catalogue http") {
				require.ErrorContains(t, err, "catalogue "+server.URL+"/iceberg")
			}
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
			require.NotContains(t, err.Error(), "secret")
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		_, err := lake.Open(context.Background(), lake.Config{Dir: t.TempDir(), Catalog: lake.REST{URI: "http://127.0.0.1:1"}})
		require.ErrorIs(t, err, lake.ErrUnavailable)
		require.ErrorContains(t, err, "catalogue http://127.0.0.1:1: ")
		require.ErrorContains(t, err, "connection refused: start it, or give the address that it has")
	})
	t.Run("no address", func(t *testing.T) {
		t.Parallel()
		for _, uri := range []string{"127.0.0.1:9", "ftp://x", "http://me:secret@x"} {
			_, err := lake.Open(context.Background(), lake.Config{Dir: t.TempDir(), Catalog: lake.REST{URI: uri}})
			require.ErrorContains(t, err, "is no address of an Iceberg REST catalogue: want a URL such as https://")
			require.NotContains(t, err.Error(), "secret")
		}
		_, err := lake.Open(context.Background(), lake.Config{Dir: t.TempDir(), Catalog: lake.REST{Warehouse: "x"}})
		require.ErrorContains(t, err, "and not its address: give that too")
	})
}

// throughGate is the configuration of a lake in a new directory, whose catalogue is behind the gate.
func throughGate(t *testing.T, gate *laketest.Gate) lake.Config {
	t.Helper()
	cfg := laketest.In(t.TempDir())
	cfg.Catalog.URI = gate.URL
	return cfg
}

func TestCatalogOfOneLake(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	gate := laketest.NewCatalogGate(t)
	cfg := laketest.In(t.TempDir())
	refused := func(cfg lake.Config, want string) {
		t.Helper()
		l, err := lake.Open(ctx, cfg)
		if err == nil {
			require.NoError(t, l.Close())
		}
		require.ErrorContains(t, err, want)
	}
	l, err := lake.Open(ctx, cfg)
	require.NoError(t, err)
	publish(t, openTable(t, l), 1, 1, quiz("a", 1, 1, 0))
	require.NoError(t, l.Close())

	// The directory remembers the catalogue, whose address may change.
	for _, again := range []lake.Config{{Dir: cfg.Dir, ReadOnly: true}, {Dir: cfg.Dir, Catalog: lake.REST{URI: gate.URL}}, {Dir: cfg.Dir}} {
		l, err := lake.Open(ctx, again)
		require.NoError(t, err)
		names, err := l.Tables(ctx)
		require.NoError(t, err)
		require.Equal(t, []lake.Name{{Namespace: "v1", Table: "quiz"}}, names)
		tbl, err := l.Lookup(ctx, names[0])
		require.NoError(t, err)
		require.Equal(t, map[string]float64{"a": 1}, scores(t, tbl))
		require.NoError(t, l.Close())
	}
	gate.Let(0, false)
	places, err := lake.ReadPlaces(ctx, cfg.Dir)
	require.NoError(t, err)
	require.Equal(t, lake.Places{Files: cfg.Warehouse, Catalog: gate.URL}, places, "without asking it")
	refused(lake.Config{Dir: cfg.Dir, ReadOnly: true}, "the lake's server is not available: catalogue "+gate.URL)
	gate.Let(math.MaxInt, false)

	other := cfg
	other.Catalog.Namespace += ".elsewhere"
	refused(other, fmt.Sprintf("is in namespace %q of catalogue", cfg.Catalog.Namespace))
	empty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/config") {
			_, _ = io.WriteString(w, `{"defaults":{},"overrides":{}}`)
			return
		}
		_, _ = io.WriteString(w, `{"namespaces":[]}`)
	}))
	defer empty.Close()
	other = cfg
	other.Catalog.URI = empty.URL
	refused(other, "catalogue "+empty.URL+" has no tables of the lake in "+cfg.Dir+", which is in the one at "+gate.URL)

	// Another lake does not get the namespaces of this one.
	other = laketest.In(t.TempDir())
	other.Catalog = cfg.Catalog
	refused(other, "namespace "+cfg.Catalog.Namespace+".v1 of catalogue "+cfg.Catalog.URI+" is another lake's")
	other = laketest.In(t.TempDir())
	other.Catalog = lake.REST{}
	l, err = lake.Open(ctx, other)
	require.NoError(t, err)
	openTable(t, l)
	require.NoError(t, l.Close())
	other.Catalog = cfg.Catalog
	refused(other, "and a catalogue of its own: leave "+cfg.Catalog.URI+" out")

	// One that was dropped is not missed; one that is gone is.
	l, err = lake.Open(ctx, cfg)
	require.NoError(t, err)
	require.NoError(t, l.Drop(ctx, "v1"))
	require.NoError(t, l.Close())
	l, err = lake.Open(ctx, cfg)
	require.NoError(t, err)
	openTable(t, l)
	require.NoError(t, l.Close())
	base := cfg.Catalog.URI + "/v1/namespaces/" + cfg.Catalog.Namespace + "%1Fv1"
	for _, url := range []string{base + "/tables/quiz", base} {
		r, err := http.NewRequestWithContext(ctx, http.MethodDelete, url, nil)
		require.NoError(t, err)
		answer, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Less(t, answer.StatusCode, 300, url)
	}
	refused(cfg, "has no tables of the lake in "+cfg.Dir+" any more: restore it from a backup")
}

// Two lakes that were opened in one namespace before either had a table.
func TestNamespaceOfTheFirstLake(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	laketest.NewCatalogGate(t)
	cfg := laketest.In(t.TempDir())
	second := laketest.In(t.TempDir())
	second.Catalog = cfg.Catalog
	l, other := openAt(t, cfg), openAt(t, second)
	openTable(t, l)
	_, err := other.Table(ctx, "v1", quizzes)
	require.ErrorContains(t, err, "outside of the lake's")
	another := quizzes
	another.Name = "another"
	_, err = other.Table(ctx, "v1", another)
	require.ErrorContains(t, err, "has tables that are not of this lake: give the lake a namespace of its own")
	names, err := other.Tables(ctx)
	require.NoError(t, err)
	require.Empty(t, names)
	require.NoError(t, other.Drop(ctx, "v1"))
	publish(t, openTable(t, l), 1, 1, quiz("a", 1, 1, 0))
}

func openAt(t *testing.T, cfg lake.Config) *lake.Lake {
	t.Helper()
	l, err := lake.Open(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func TestCatalogAsksWhoItIs(t *testing.T) {
	t.Parallel()
	gate := laketest.NewCatalogGate(t)
	tokens := make(chan string, 1000)
	gate.Hold(func(r *http.Request) { tokens <- r.Header.Get("Authorization") })
	for _, c := range []struct {
		who  lake.REST
		want string
	}{{lake.REST{Token: "abc"}, "Bearer abc"}, {lake.REST{Credential: "me:secret"}, "Bearer client-credentials-token:sub=me"}} {
		cfg := throughGate(t, gate)
		cfg.Catalog.Token, cfg.Catalog.Credential = c.who.Token, c.who.Credential
		openTable(t, openAt(t, cfg))
		last := ""
		for len(tokens) > 0 {
			last = <-tokens
		}
		require.Equal(t, c.want, last)
		content, err := os.ReadFile(cfg.Dir + "/catalog.db")
		require.NoError(t, err)
		for _, secret := range []string{"abc", "me:secret"} {
			require.NotContains(t, string(content), secret, "it is not kept")
		}
	}
}

// isCommit reports whether a request is one that commits to a table.
func isCommit(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.Contains(r.URL.Path, "/tables/")
}

// A commit that is on its way to the catalogue, with all that it was made on looked at, when another lineage claims the table. The claim changes
// properties alone, unless the table goes back.
func TestClaimRefusesACommitOnItsWay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		claimed bool   // by L1 before
		epochs  uint64 // in the table
	}{{"an empty table", true, 0}, {"an empty table that nobody had", false, 0}, {"a table", true, 2}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			gate := laketest.NewCatalogGate(t)
			cfg := throughGate(t, gate)
			tbl := openTable(t, openAt(t, cfg))
			if c.claimed {
				require.NoError(t, tbl.Claim(ctx, claim(first)))
			}
			hot(t, tbl, "L1", 1, c.epochs)
			claims := 0
			direct := laketest.In(cfg.Dir)
			gate.Hold(func(r *http.Request) {
				if !isCommit(r) || claims > 0 {
					return
				}
				claims++
				second := first.Fork(c.epochs, "L2", 2)
				if !c.claimed {
					second.ID, second.Token = "L2", 1
				}
				require.NoError(t, openTable(t, openAt(t, direct)).Claim(ctx, claim(second)))
			})
			p, err := tbl.Write(ctx, []plan.Row{quiz("z", 1, c.epochs+1, 0)}, "L1", "1.0.0")
			require.NoError(t, err)
			err = tbl.Commit(ctx, p, lake.Position{Lineage: "L1", FromEpoch: c.epochs + 1, ToEpoch: c.epochs + 1})
			gate.Hold(nil)
			require.Equal(t, 1, claims)
			require.ErrorIs(t, err, lake.ErrFenced)
			require.Equal(t, upTo(c.epochs), scores(t, openTable(t, openAt(t, direct))))
		})
	}
}

// A process ends with a commit on its way. The next one sweeps its files; the commit must not come into effect then.
func TestSweepRefusesACommitOnItsWay(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	gate := laketest.NewCatalogGate(t)
	cfg := throughGate(t, gate)
	tbl := openTable(t, openAt(t, cfg))
	require.NoError(t, tbl.Claim(ctx, claim(first)))
	hot(t, tbl, "L1", 1, 2)
	direct := laketest.In(cfg.Dir)
	swept := -1
	gate.Hold(func(r *http.Request) {
		if !isCommit(r) || swept >= 0 {
			return
		}
		var err error
		swept, err = openTable(t, openAt(t, direct)).Sweep(ctx, 0)
		require.NoError(t, err)
		gate.Let(1, false) // the catalogue gets it, and nobody is left to see the answer
	})
	p, err := tbl.Write(ctx, []plan.Row{quiz("z", 1, 3, 0)}, "L1", "1.0.0")
	require.NoError(t, err)
	require.Error(t, tbl.Commit(ctx, p, lake.Position{Lineage: "L1", FromEpoch: 3, ToEpoch: 3}))
	require.Equal(t, 3, swept, "a data file, a manifest and its list")
	require.Equal(t, upTo(2), scores(t, openTable(t, openAt(t, direct))))
}

// The catalogue goes away before, or in the middle of, each request, and comes back.
func TestCatalogGoesAwayAtEachStep(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		answerless bool // the first request is carried out
		status     int
	}{{"before", false, 0}, {"in the middle", true, 0}, {"in the middle of a proxy", true, http.StatusGatewayTimeout}, {"busy", false, http.StatusServiceUnavailable}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			gate := laketest.NewCatalogGate(t)
			gate.Status = c.status
			for requests := 0; ; requests++ {
				gate.Let(math.MaxInt, false)
				l, err := lake.Open(ctx, throughGate(t, gate))
				require.NoError(t, err)
				gate.Let(requests, c.answerless)
				err = publishAll(ctx, l)
				gone := gate.Refused() > 0
				gate.Let(math.MaxInt, false)
				if gone {
					require.ErrorIs(t, err, lake.ErrUnavailable, "after %d requests", requests)
					err = publishAll(ctx, l)
				}
				require.NoError(t, err, "after %d requests", requests)
				tbl, err := l.Table(ctx, "v1", quizzes)
				require.NoError(t, err)
				require.Equal(t, afterBatches, scores(t, tbl), "after %d requests", requests)
				require.NoError(t, l.Close())
				if !gone {
					require.Greater(t, requests, 10, "too few requests to have failed in each step")
					return
				}
			}
		})
	}
}
