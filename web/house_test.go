package web_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestVendoredFiles: each third-party file is the one that vendor.json says it is.
func TestVendoredFiles(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("vendor.json")
	require.NoError(t, err)
	var list struct {
		Files []struct{ Path, Package, Version, Licence, SHA256 string }
	}
	require.NoError(t, json.Unmarshal(b, &list))
	listed := map[string]bool{"static/console.css": true, "static/console.js": true, "static/icon.svg": true} // ours
	for _, f := range list.Files {
		listed[f.Path] = true
		require.NotEmpty(t, f.Licence, f.Path)
		require.NotEmpty(t, f.Version, f.Path)
		body, err := os.ReadFile(f.Path)
		require.NoError(t, err)
		sum := sha256.Sum256(body)
		require.Equal(t, f.SHA256, hex.EncodeToString(sum[:]), "%s is not what vendor.json says; run scripts/vendor.sh", f.Path)
	}
	files, err := fs.Glob(os.DirFS("."), "static/*")
	require.NoError(t, err)
	for _, f := range files {
		require.True(t, listed[f], "%s is neither ours nor in vendor.json", f)
	}
}

// TestOneVendorScript: htmx starts on a timer, so an extension in a second file may come too late to see the page.
func TestOneVendorScript(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("static/htmx.js")
	require.NoError(t, err)
	core, sse := strings.Index(string(b), "var htmx="), strings.Index(string(b), "hx-sse")
	require.GreaterOrEqual(t, core, 0)
	require.Greater(t, sse, core, "htmx.js has to hold htmx and then its sse extension")
}

// TestTemplates holds the rules that keep the pages within the policy, and values out of scripts.
func TestTemplates(t *testing.T) {
	t.Parallel()
	forbidden := map[string]string{
		`hx-on`:                     "html/template does not escape for JavaScript there",
		`js:`:                       "html/template does not escape for JavaScript there",
		`javascript:`:               "no script in addresses",
		`(?i)\son[a-z]+\s*=`:        "inline handlers are refused by the policy",
		`(?i)\sstyle\s*=`:           "inline styles are refused by the policy",
		`(?i)<style`:                "inline styles are refused by the policy",
		`(?i)<script(?:[^>]*)>[^<]`: "inline scripts are refused by the policy",
		`https?://`:                 "no other host",
	}
	seen := 0
	require.NoError(t, fs.WalkDir(os.DirFS("page"), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen++
		b, err := os.ReadFile("page/" + path)
		require.NoError(t, err)
		for pattern, why := range forbidden {
			require.NotRegexp(t, pattern, string(b), "page/%s: %s", path, why)
		}
		return nil
	}))
	require.GreaterOrEqual(t, seen, 4)
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	s := newServer(t, newPipeline(func() time.Time { return noon }).config())
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
		"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	for _, target := range []string{"/", "/tables/quiz_submission", "/tables/nope", "/api/v1/status", "/healthz", "/nope"} {
		w := page(s, target)
		require.Equal(t, policy, w.Header().Get("Content-Security-Policy"), target)
		require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"), target)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"), target)
	}
	w := page(s, "/")
	require.Contains(t, w.Body.String(), `"includeIndicatorCSS":false`)
}

func TestCrossOriginRequestsAreRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t, newPipeline(func() time.Time { return noon }).config())
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	require.Equal(t, http.StatusForbidden, w.Code)

	r = httptest.NewRequest(http.MethodPost, "/", nil)
	w = httptest.NewRecorder()
	s.ServeHTTP(w, r)
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
}

// TestAssets: every asset a page or style names is there under its content's hash, may be kept for ever, and all fit the budget.
func TestAssets(t *testing.T) {
	t.Parallel()
	s := newServer(t, newPipeline(func() time.Time { return noon }).config())
	named := regexp.MustCompile(`/assets/[^"]+`)
	first := page(s, "/")
	total := first.Body.Len()
	queue := named.FindAllString(first.Body.String(), -1)
	require.Len(t, queue, 4, "icon, style, two scripts")
	for len(queue) > 0 {
		target := queue[0]
		queue = queue[1:]
		w := get(s, target, "")
		require.Equal(t, http.StatusOK, w.Code, target)
		require.Equal(t, "public, max-age=31536000, immutable", w.Header().Get("Cache-Control"), target)
		require.NotEmpty(t, w.Header().Get("Content-Type"), target)
		total += w.Body.Len()
		if strings.HasSuffix(target, ".css") {
			require.Less(t, w.Body.Len(), 25_000, "one CSS file under 25 kB")
			for _, m := range regexp.MustCompile(`url\("([^"]+)"\)`).FindAllStringSubmatch(w.Body.String(), -1) {
				queue = append(queue, "/assets/"+m[1])
			}
		}
	}
	require.Less(t, total, 180_000, "bytes of a first visit")
	require.Equal(t, http.StatusNotFound, get(s, "/assets/console.css", "").Code, "only hashed names: others would be cached stale")
}

// TestContrast computes the contrast of every text pair and control border of the style's tokens, in both themes.
func TestContrast(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("static/console.css")
	require.NoError(t, err)
	tokens := map[string][2]string{}
	for _, m := range regexp.MustCompile(`--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)`).FindAllStringSubmatch(string(b), -1) {
		tokens[m[1]] = [2]string{m[2], m[3]}
	}
	require.Len(t, tokens, 21)
	require.Equal(t, 21, strings.Count(string(b), "light-dark("), "every colour is a token with both themes")

	type pair struct {
		fore, back string
		least      float64
	}
	pairs := []pair{{"accent-ink", "accent", 4.5}, {"line-strong", "surface", 3}, {"line-strong", "bg", 3}}
	for _, back := range []string{"bg", "surface", "sunken"} {
		for _, fore := range []string{"text", "text-2", "text-3", "accent", "ok", "busy", "warn", "bad", "idle"} {
			pairs = append(pairs, pair{fore, back, 4.5})
		}
	}
	for _, state := range []string{"accent", "ok", "busy", "warn", "bad", "idle"} {
		pairs = append(pairs, pair{state, state + "-soft", 4.5})
	}
	for _, p := range pairs {
		for i, theme := range []string{"light", "dark"} {
			fore, back := tokens[p.fore][i], tokens[p.back][i]
			require.NotEmpty(t, fore, p.fore)
			require.NotEmpty(t, back, p.back)
			got := contrast(t, fore, back)
			require.GreaterOrEqual(t, got, p.least, "%s %s on %s %s in %s: %.2f", p.fore, fore, p.back, back, theme, got)
		}
	}
}

// contrast is WCAG's contrast ratio of two colours.
func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	la, lb := luminance(t, a), luminance(t, b)
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	out := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[1+2*i:3+2*i], 16, 8)
		require.NoError(t, err)
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		out += weight * c
	}
	return out
}
