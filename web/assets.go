package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strings"
	"time"
)

//go:embed page static
var embedded embed.FS

// site is everything the pages are made of: templates, and assets under names that hold their content's hash.
type site struct {
	templates map[string]*template.Template // by page: overview, table, error
	assets    map[string][]byte             // by hashed name: console.3f2a9c1d.css
	hashed    map[string]string             // hashed name by plain name
}

var pages = []string{"overview", "table", "error", "login", "setup", "account"}

// contentTypes are those of the assets, given here because the machine's own list may lack one.
var contentTypes = map[string]string{
	".css":   "text/css; charset=utf-8",
	".js":    "text/javascript; charset=utf-8",
	".svg":   "image/svg+xml",
	".txt":   "text/plain; charset=utf-8",
	".woff2": "font/woff2",
}

// cssURL finds what a style sheet refers to; all of it lies beside the sheet.
var cssURL = regexp.MustCompile(`url\("([^":]+)"\)`)

// loadSite reads templates and assets. It fails on a template that does not parse and on a missing asset.
func loadSite(files fs.FS) (*site, error) {
	s := &site{templates: map[string]*template.Template{}, assets: map[string][]byte{}, hashed: map[string]string{}}
	names, err := fs.Glob(files, "static/*")
	if err != nil {
		return nil, err
	}
	// Style sheets last: they name other assets.
	for _, sheets := range []bool{false, true} {
		for _, name := range names {
			if (path.Ext(name) == ".css") != sheets {
				continue
			}
			body, err := fs.ReadFile(files, name)
			if err != nil {
				return nil, fmt.Errorf("read asset: %w", err)
			}
			if sheets {
				body = cssURL.ReplaceAllFunc(body, func(m []byte) []byte {
					ref := string(cssURL.FindSubmatch(m)[1])
					if s.hashed[ref] == "" {
						err = fmt.Errorf("%s refers to %s, which does not exist", name, ref)
					}
					return []byte(`url("` + s.hashed[ref] + `")`)
				})
				if err != nil {
					return nil, err
				}
			}
			s.add(path.Base(name), body)
		}
	}

	base, err := template.New("base").Funcs(s.funcs()).ParseFS(files, "page/*.html")
	if err != nil {
		return nil, fmt.Errorf("parse templates: %w", err)
	}
	for _, page := range pages {
		t, err := base.Clone()
		if err == nil {
			t, err = t.ParseFS(files, "page/"+page+"/*.html")
		}
		if err != nil {
			return nil, fmt.Errorf("parse templates of %s: %w", page, err)
		}
		s.templates[page] = t
	}
	return s, nil
}

func (s *site) add(name string, body []byte) {
	sum := sha256.Sum256(body)
	stem, ext, _ := strings.Cut(name, ".")
	hashed := stem + "." + hex.EncodeToString(sum[:6]) + "." + ext
	s.assets[hashed] = body
	s.hashed[name] = hashed
}

// asset is the template function that gives an asset's address.
func (s *site) asset(name string) (string, error) {
	hashed, ok := s.hashed[name]
	if !ok {
		return "", fmt.Errorf("no asset %s", name)
	}
	return "/assets/" + hashed, nil
}

func (s *site) funcs() template.FuncMap {
	return template.FuncMap{
		"asset":    s.asset,
		"num":      formatNumber,
		"rate":     formatRate,
		"seconds":  formatSeconds,
		"bytes":    formatBytes,
		"sentence": sentence,
		"tableURL": tableURL,
	}
}

// render executes a template of a page into memory, so that an error never leaves half a page.
func (s *site) render(page, name string, data any) ([]byte, error) {
	var b bytes.Buffer
	if err := s.templates[page].ExecuteTemplate(&b, name, data); err != nil {
		return nil, fmt.Errorf("render %s of page %s: %w", name, page, err)
	}
	return b.Bytes(), nil
}

// serveAsset answers a hashed name, to be kept for ever; any other name is not found, so no stale copy can be cached.
func (s *Server) serveAsset(w http.ResponseWriter, r *http.Request) error {
	site, err := s.site()
	if err != nil {
		return err
	}
	name := r.PathValue("name")
	body, ok := site.assets[name]
	if !ok {
		return fmt.Errorf("%w: asset %s", ErrNotFound, name)
	}
	h := w.Header()
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Content-Type", contentTypes[path.Ext(name)])
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(body))
	return nil
}
