package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"millrace/control"
	"millrace/control/access"
	"millrace/control/api"
)

// withIdentities gives fn whom to ask for tokens, users and sensor keys: what the command is told to ask, and of a data directory that nothing uses the store itself,
// by the same API, so that commands answer the same.
func withIdentities(cmd *cobra.Command, fn func(client) error) error {
	t, err := askedBy(cmd)
	if err != nil {
		return err
	}
	if t.isRemote() {
		c, err := remoteClient(t)
		if err != nil {
			return err
		}
		return fn(c)
	}
	if dir, err := readDataDir(dataDirFlag(cmd)); err == nil {
		if r, ok := dir.running(); ok {
			return fn(localClient(r))
		}
	}
	return withStore(cmd, func(store *control.Store) error {
		h, err := api.New(api.Config{Store: store, Version: version, Audit: store.Audit.Add})
		if err != nil {
			return err
		}
		return fn(client{base: "http://localhost", name: "data directory " + dataDirFlag(cmd), atRest: true, http: &http.Client{Transport: inProcess{h}}})
	})
}

// inProcess asks a handler of this process, as whoever may do all with the data directory.
type inProcess struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := written{status: http.StatusOK, header: http.Header{}}
	p.handler.ServeHTTP(&w, r.WithContext(access.With(r.Context(), access.Principal{Name: "local", Role: control.Admin, Local: true})))
	return &http.Response{
		StatusCode: w.status, Status: strconv.Itoa(w.status) + " " + http.StatusText(w.status), Proto: r.Proto, ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor,
		Header: w.header, Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()), Request: r,
	}, nil
}

// written is an answer that a handler has written.
type written struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (w *written) Header() http.Header         { return w.header }
func (w *written) WriteHeader(status int)      { w.status = status }
func (w *written) Write(b []byte) (int, error) { return w.body.Write(b) }

// listAll asks for a list page by page. after is what it goes on after when that was the last one of a page.
func listAll[T any](ctx context.Context, c client, path string, query url.Values, after func(T) string) (all []T, err error) {
	all = []T{}
	for {
		var page []T
		if err := c.do(ctx, http.MethodGet, path+"?"+query.Encode(), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < api.ListPage {
			return all, nil
		}
		query.Set("after", after(page[len(page)-1]))
	}
}
