package sim

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Poster posts envelopes to a collector. It is safe for concurrent use and keeps connections alive.
type Poster struct {
	URL    string       // of the collector's endpoint
	Key    string       // sensor key
	Client *http.Client // default: one that gives up on an answer after 30 s
}

// PostOptions say how one envelope is posted. The zero value posts plain JSON with a bearer key.
type PostOptions struct {
	ContentType string // default application/json
	UserAgent   string // default that of net/http
	Gzip        bool   // compress the body
	RawKey      bool   // send the key as the whole Authorization header, as Java sensors do; else as a bearer token
}

// Refusal is a collector's answer other than 200.
type Refusal struct {
	Status int    // HTTP status
	Detail string // what the collector says is wrong; empty when it says nothing
}

func (e *Refusal) Error() string {
	msg := fmt.Sprintf("answered %d %s", e.Status, http.StatusText(e.Status))
	if e.Detail != "" {
		msg += ": " + e.Detail
	}
	return msg
}

// Retryable reports whether the same bytes may be accepted later.
func (e *Refusal) Retryable() bool {
	return e.Status >= 500 || e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout
}

var defaultClient = &http.Client{
	Timeout:   30 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute},
}

// Post sends body once. The error is nil for 200 alone, a *Refusal for every other answer, and otherwise says why there
// was no answer: then the status is 0, and the collector may or may not have the body.
func (p *Poster) Post(ctx context.Context, body []byte, o PostOptions) (status int, err error) {
	if o.Gzip {
		if body, err = compress(body); err != nil {
			return 0, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("post to %s: %w", p.URL, err)
	}
	req.Header.Set("Content-Type", "application/json")
	if o.ContentType != "" {
		req.Header.Set("Content-Type", o.ContentType)
	}
	if o.UserAgent != "" {
		req.Header.Set("User-Agent", o.UserAgent)
	}
	if o.Gzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	req.Header.Set("Authorization", p.Key)
	if !o.RawKey {
		req.Header.Set("Authorization", "Bearer "+p.Key)
	}
	client := p.Client
	if client == nil {
		client = defaultClient
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("post to %s: %w", p.URL, unwrapURL(err))
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	closed := res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return res.StatusCode, &Refusal{Status: res.StatusCode, Detail: detail(answer)}
	}
	if err := errors.Join(err, closed); err != nil {
		return 0, fmt.Errorf("read the answer of %s: %w", p.URL, err)
	}
	return res.StatusCode, nil
}

// unwrapURL takes off net/http's own mention of method and address, which ours has already.
func unwrapURL(err error) error {
	var inner *url.Error
	if errors.As(err, &inner) {
		return inner.Err
	}
	return err
}

var compressors = sync.Pool{New: func() any { return gzip.NewWriter(nil) }} // each has 800 KB

func compress(body []byte) ([]byte, error) {
	var b bytes.Buffer
	w := compressors.Get().(*gzip.Writer)
	defer compressors.Put(w)
	w.Reset(&b)
	if _, err := w.Write(body); err != nil {
		return nil, fmt.Errorf("compress a body: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress a body: %w", err)
	}
	return b.Bytes(), nil
}

// detail returns the one sentence of an RFC 9457 problem document, or the beginning of whatever else was answered.
func detail(answer []byte) string {
	var problem struct{ Title, Detail string }
	if json.Unmarshal(answer, &problem) == nil {
		if problem.Detail != "" {
			return problem.Detail
		}
		return problem.Title
	}
	text := strings.Join(strings.Fields(string(answer)), " ")
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "…"
	}
	return text
}
