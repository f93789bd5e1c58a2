package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"millrace/control"
	"millrace/control/api"
	"millrace/web"
)

// client asks a Millrace: the process that uses the data directory, or one elsewhere.
type client struct {
	asked
	base  string // URL without a path
	token string
	name  string // of what is asked, for people
	http  *http.Client

	atRest bool // it is the store of a data directory that nothing uses, which knows tokens, users and keys alone
}

// newClient returns what asks what the command is told to ask.
func newClient(cmd *cobra.Command) (client, error) {
	t, err := askedBy(cmd)
	if err != nil {
		return client{}, err
	}
	if t.isRemote() {
		return remoteClient(t)
	}
	dir, err := readDataDir(dataDirFlag(cmd))
	if err != nil {
		return client{}, err
	}
	r, ok := dir.running()
	if !ok {
		return client{}, fmt.Errorf("no process uses data directory %s: start 'millrace serve' on it first", dir.path)
	}
	return localClient(r), nil
}

// usesDirectory says of a process why it is asked.
const usesDirectory = ", which uses the data directory"

// localClient asks a process of this machine.
func localClient(r running) client {
	return client{base: "http://" + r.Listen, token: r.Token, name: fmt.Sprintf("process %d", r.PID) + usesDirectory, http: http.DefaultClient}
}

// remoteClient asks another machine.
func remoteClient(t asked) (client, error) {
	if err := t.check(); err != nil {
		return client{}, err
	}
	pool, err := t.authorities()
	if err != nil {
		return client{}, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // nobody replaces it
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	return client{
		asked: t, base: strings.TrimRight(t.URL, "/"), token: t.Token, name: t.remote.String(),
		// Where a redirect leads may have no TLS, or be another's.
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// request makes one that shows the token.
func (c client) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err == nil && c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, err
}

// do asks and decodes the answer. A problem that is answered is an error in its own words.
func (c client) do(ctx context.Context, method, path string, body, into any) error {
	_, err := c.doWith(ctx, method, path, nil, body, into)
	return err
}

// doWith is do with headers. It returns those of the answer.
func (c client) doWith(ctx context.Context, method, path string, header http.Header, body, into any) (http.Header, error) {
	var content io.Reader = http.NoBody
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(b)
	}
	req, err := c.request(ctx, method, path, content)
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, header)
	return c.answer(req, into)
}

// answer does a request and decodes its answer.
func (c client) answer(req *http.Request, into any) (http.Header, error) {
	res, err := c.roundTrip(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return nil, c.away(fmt.Errorf("read the answer to %s: %w", req.URL.Path, err))
	}
	return res.Header, nil
}

// roundTrip does a request of the API, and returns the answer when it is a good one.
func (c client) roundTrip(req *http.Request) (*http.Response, error) {
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.away(err)
	}
	err = c.checkVersion(res)
	if err == nil && (res.StatusCode == http.StatusOK || res.StatusCode == http.StatusAccepted) {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, c.away(err)
	}
	var p api.Problem
	if json.Unmarshal(text, &p) != nil || p.Detail == "" {
		return nil, fmt.Errorf("%s answers %s with %s", c.name, req.URL.Path, res.Status)
	}
	problem := problemError{p}
	if c.isRemote() && p.Status == http.StatusUnauthorized {
		return nil, fmt.Errorf("%s: %w; 'millrace token add' there makes another one, and %s", c.name, problem, c.withToken())
	}
	return nil, problem
}

// withToken says how a token is given to what is asked.
func (c client) withToken() string {
	if c.Name == "" {
		return "$" + tokenVariable + " has it be shown"
	}
	return fmt.Sprintf("'millrace context add %s --url %s' has it be shown", c.Name, c.URL)
}

// away is what is said when there is no answer.
func (c client) away(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // the URL is named already
	}
	err = fmt.Errorf("ask %s: %w", c.name, err)
	bad := (*tls.CertificateVerificationError)(nil)
	switch {
	case !c.isRemote() || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &bad):
		return fmt.Errorf("%w; if its authority is your own give that with --ca-file", err)
	}
	return fmt.Errorf("%w; see that 'millrace serve' runs there, and that this is its URL", err)
}

// checkVersion returns an error unless an answer is of the API that this program speaks.
func (c client) checkVersion(res *http.Response) error {
	switch is := res.Header.Get(api.VersionHeader); {
	case is == api.Version, is == "" && !c.isRemote():
		return nil
	case is != "":
		return fmt.Errorf("%s speaks version %s of the API, and this program (%s) version %s: use the millrace that runs there", c.name, is, version, api.Version)
	case res.Header.Get("Location") != "":
		return fmt.Errorf("%s does not answer like a Millrace: it sends on to %s; give the URL of the Millrace itself, with --url or 'millrace context add'", c.name, res.Header.Get("Location"))
	}
	return fmt.Errorf("%s does not answer like a Millrace, but with %s and %q: see that the URL is right, and what stands before it lets /api/ through", c.name, res.Status, res.Header.Get("Content-Type"))
}

// status asks for the state of everything.
func (c client) status(ctx context.Context) (st web.Status, err error) {
	return st, c.do(ctx, http.MethodGet, "/api/v1/status", nil, &st)
}

// problemError is what the process that serves has answered.
type problemError struct{ api.Problem }

func (p problemError) Error() string {
	text := p.Detail
	for _, prefix := range []string{api.ErrInvalid.Error() + ": ", api.ErrNotFound.Error() + ": ", control.ErrRefused.Error() + ": ", control.ErrUnknownInstance.Error() + ": "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return text
}

// exitCode is the command's exit code for it.
func (p problemError) exitCode() int {
	switch p.Status {
	case http.StatusBadRequest:
		return exitUsage
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitNotAllowed
	case http.StatusConflict, http.StatusPreconditionFailed:
		return exitConflict
	}
	return exitFailed
}
