package web_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"millrace/web"
)

// browser starts a headless Chromium, whose path MILLRACE_CHROMIUM gives, and collects what it complains about.
// MILLRACE_SCREENSHOTS may name a folder to keep pictures of the pages in.
func browser(t *testing.T) (ctx context.Context, complaints func() []string) {
	t.Helper()
	path := os.Getenv("MILLRACE_CHROMIUM")
	if path == "" {
		t.Skip("MILLRACE_CHROMIUM is not set: it gives the path of a Chromium")
	}
	// Not the test's context, which ends before its clean-ups: the browser has to be ended properly.
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits for the browser's end, so that its folder can be removed
		closeTab()
	})

	var mu sync.Mutex
	var said []string
	chromedp.ListenTarget(ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *log.EventEntryAdded: // violations of the content security policy come here, and failed requests
			if e.Entry.Level == log.LevelError || e.Entry.Level == log.LevelWarning {
				said = append(said, fmt.Sprintf("%s: %s (%s)", e.Entry.Level, e.Entry.Text, e.Entry.URL))
			}
		case *runtime.EventExceptionThrown:
			said = append(said, e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning {
				said = append(said, fmt.Sprintf("console.%s: %s", e.Type, e.Args[0].Value))
			}
		}
	})
	require.NoError(t, chromedp.Run(ctx, log.Enable(), chromedp.EmulateViewport(1280, 800)))
	return ctx, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), said...)
	}
}

// serve runs a console over a moving pipeline.
func serve(t *testing.T, p *pipeline) string {
	t.Helper()
	s := newServer(t, p.config())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	srv := httptest.NewServer(s)
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
		srv.Close()
	})
	return srv.URL
}

const isLive = `document.getElementById('live').dataset.state === 'live'`

// until polls a condition in the page, through reloads.
func until(condition string) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var ok bool
			err := chromedp.Evaluate(condition, &ok).Do(ctx)
			if ok && err == nil {
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait until %s: %w", condition, errors.Join(ctx.Err(), err))
			case <-tick.C:
			}
		}
	})
}

// TestBrowserStreamOpens: the stream opens on 40 of 40 loads, and nothing on the page is against its own policy.
func TestBrowserStreamOpens(t *testing.T) {
	ctx, complaints := browser(t)
	url := serve(t, newPipeline(time.Now))
	for i := range 40 {
		require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(url), until(isLive)), "load %d", i+1)
	}
	require.Empty(t, complaints())
}

// TestBrowserNumbersMove: values change without a reload, also on a table's page; paused, they stay.
func TestBrowserNumbersMove(t *testing.T) {
	ctx, complaints := browser(t)
	url := serve(t, newPipeline(time.Now))
	for target, element := range map[string]string{"/": "#flow .big", "/tables/quiz_submission": "#rows tbody td"} {
		text := fmt.Sprintf("document.querySelector(%q).textContent", element)
		var first string
		require.NoError(t, chromedp.Run(ctx,
			chromedp.Navigate(url+target), until(isLive),
			chromedp.Evaluate(text, &first)))
		require.NotEmpty(t, first)
		require.NoError(t, chromedp.Run(ctx, until(fmt.Sprintf("%s !== %q", text, first))), "%s of %s does not move", element, target)

		// While paused, a push arrives and changes nothing.
		var paused, later string
		require.NoError(t, chromedp.Run(ctx,
			chromedp.KeyEvent("p"), until(`document.getElementById('live').dataset.state === 'paused'`),
			chromedp.Evaluate(`document.addEventListener('htmx:sse:before:message', () => { window.pushes = (window.pushes || 0) + 1 })`, nil),
			chromedp.Evaluate(text, &paused),
			until(`window.pushes >= 2`),
			chromedp.Evaluate(text, &later)))
		require.Equal(t, paused, later)
		require.NoError(t, chromedp.Run(ctx, chromedp.Click("#pause"), until(isLive), until(fmt.Sprintf("%s !== %q", text, paused))))
	}
	require.Empty(t, complaints())
}

// TestBrowserReconnects: a page says that the server is gone, and lives again when it is back.
func TestBrowserReconnects(t *testing.T) {
	ctx, _ := browser(t)
	p := newPipeline(time.Now)
	var srv *httptest.Server
	var stop func()
	start := func(s *web.Server) {
		run, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = s.Run(run) }()
		old := srv
		srv = httptest.NewUnstartedServer(s)
		if old != nil {
			l, err := listenAgain(old.Listener.Addr().String())
			require.NoError(t, err)
			srv.Listener.Close()
			srv.Listener = l
		}
		srv.Start()
		stop = func() { cancel(); <-ended; srv.Close() }
	}
	start(newServer(t, p.config()))
	require.NoError(t, chromedp.Run(ctx, chromedp.Navigate(srv.URL), until(isLive)))
	stop()
	require.NoError(t, chromedp.Run(ctx, until(`document.getElementById('live').dataset.state === 'reconnecting'`)))
	start(newServer(t, p.config()))
	defer func() { stop() }()
	require.NoError(t, chromedp.Run(ctx, until(isLive)))
	var first string
	text := `document.querySelector("#flow .big").textContent`
	require.NoError(t, chromedp.Run(ctx, chromedp.Evaluate(text, &first), until(fmt.Sprintf("%s !== %q", text, first))))
}

// TestBrowserKeepsWhatTheReaderDid: a push does not close what was opened, nor move the focus.
func TestBrowserKeepsWhatTheReaderDid(t *testing.T) {
	ctx, _ := browser(t)
	url := serve(t, newPipeline(time.Now))
	var open bool
	var focus string
	require.NoError(t, chromedp.Run(ctx,
		chromedp.Navigate(url), until(isLive),
		chromedp.Click("summary"),
		chromedp.Focus(`#tables tbody tr:nth-child(3) a`),
		chromedp.Evaluate(`document.addEventListener('htmx:sse:after:message', () => { window.pushes = (window.pushes || 0) + 1 })`, nil),
		until(`window.pushes >= 3`),
		chromedp.Evaluate(`document.querySelector('details').open`, &open),
		chromedp.Evaluate(`document.activeElement.textContent`, &focus)))
	require.True(t, open)
	require.Equal(t, "enrollment", focus)
}

// TestBrowserThemes draws the pages in both themes, and checks that none of them scrolls sideways, also on a phone.
func TestBrowserThemes(t *testing.T) {
	ctx, complaints := browser(t)
	clock := &steppedClock{at: noon}
	p := newPipeline(clock.now)
	full := newServer(t, p.config())
	for range 9 * 60 { // history for the charts
		get(full, "/api/v1/status", "")
		clock.step(time.Second)
	}
	empty := newServer(t, web.Config{Now: clock.now, Status: func(context.Context, string) (web.Status, error) {
		return web.Status{StartedAt: clock.now(), Collected: web.Collected{Items: new(int64)}, Version: "1.0.0", DataDir: "/var/lib/millrace", CollectorURL: "http://127.0.0.1:8080/caliper"}, nil
	}})
	bad := newPipeline(clock.now)
	bad.unread = errDisk
	bad.tweak = func(s *web.Status) {
		s.Jobs[1].State, s.Jobs[1].Error = "FAILED", "write outbox segment 000412: no space left on device"
		s.Jobs[0].LagSeconds, s.Jobs[0].LagRecords = new(184.0), new(int64(92_114))
		s.Ledger.Accounts[0].Total.Count += 3
		s.Lake.Entities = nil
	}
	broken := newServer(t, bad.config())

	people, signedIn := newServer(t, withAccounts("")(p)), newServer(t, withAccounts("ann")(p))
	provider, away, atProvider := newServer(t, withProvider(nil)(p)), newServer(t, withProvider(errAway)(p)), newServer(t, signedInAtProvider(p))
	for _, theme := range []string{"light", "dark"} {
		for _, c := range []struct {
			name, target  string
			server        *web.Server
			width, height int64
		}{
			{"overview", "/?table=quiz_submission", full, 1280, 1700},
			{"overview-phone", "/?table=quiz_submission", full, 390, 2600},
			{"table", "/tables/quiz_submission", full, 1280, 900},
			{"empty", "/", empty, 1280, 1200},
			{"bad", "/", broken, 1280, 1700},
			{"error", "/tables/nope", full, 1280, 400},
			{"login", "/login", people, 1280, 500},
			{"login-provider", "/login", provider, 1280, 600},
			{"login-provider-away-phone", "/login/oidc", away, 390, 800},
			{"account-provider", "/account", atProvider, 1280, 500},
			{"setup-phone", "/setup?token=good", people, 390, 700},
			{"account", "/account", signedIn, 1280, 700},
		} {
			srv := httptest.NewServer(c.server)
			var width int64
			var ink string
			var shot []byte
			require.NoError(t, chromedp.Run(ctx,
				emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}),
				chromedp.EmulateViewport(c.width, c.height),
				chromedp.Navigate(srv.URL+c.target),
				chromedp.Evaluate(`document.fonts.ready.then(() => 1)`, nil, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }),
				chromedp.Evaluate(`document.documentElement.scrollWidth`, &width),
				chromedp.Evaluate(`getComputedStyle(document.documentElement).backgroundColor`, &ink),
				chromedp.CaptureScreenshot(&shot)), "%s %s", c.name, theme)
			require.LessOrEqual(t, width, c.width, "%s in %s scrolls sideways", c.name, theme)
			require.Equal(t, map[string]string{"light": "rgb(247, 248, 248)", "dark": "rgb(17, 20, 22)"}[theme], ink)
			if dir := os.Getenv("MILLRACE_SCREENSHOTS"); dir != "" {
				require.NoError(t, os.WriteFile(filepath.Join(dir, c.name+"-"+theme+".png"), shot, 0o644))
			}
			require.NoError(t, chromedp.Run(ctx, chromedp.Navigate("about:blank")))
			srv.Close()
		}
	}
	for _, c := range complaints() {
		if strings.Contains(c, "404") && strings.Contains(c, "/tables/nope") {
			continue // asked for on purpose
		}
		if strings.Contains(c, "502") && strings.Contains(c, "/login/oidc") {
			continue // so is that
		}
		require.Fail(t, "the browser complains", c)
	}
}
