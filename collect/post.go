package collect

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"millrace/caliper"
	"millrace/record"
)

const (
	// maxText bounds the texts of an item that travel beside its bytes, in bytes: ids and sensors are IRIs, not documents.
	maxText = 2048

	// maxTexts is room for all of an item's texts.
	maxTexts = 6 * maxText
)

// post takes an envelope and returns nil when every item of it is durable.
func (c *Collector) post(w http.ResponseWriter, r *http.Request) *problem {
	key, p := c.authorize(w, r)
	if p != nil {
		return p
	}
	received := c.cfg.Now()
	body, p := c.readBody(w, r)
	var items []record.Item
	if p == nil {
		items, p = c.items(r, body)
	}
	if p != nil {
		if len(body) == 0 || len(body) > c.cfg.Log.MaxItemBytes()-maxTexts {
			return p // nothing to keep, or more than can be kept
		}
		reason := p.Detail
		if encoding := r.Header.Get("Content-Encoding"); encoding != "" {
			reason = fmt.Sprintf("%s (Content-Encoding: %s)", reason, encoding)
		}
		items = []record.Item{{Kind: record.Reject, Reason: clip(reason), Bytes: body}}
		p.Kept = true
	}
	for i := range items {
		item := &items[i]
		item.Account, item.Env, item.SourceType, item.ReceivedAt = key.Account, key.Env, key.SourceType, received
	}

	// The payload is complete: it is worth keeping also when its sender does not wait for the answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), c.cfg.AppendTimeout)
	defer cancel()
	_, span := c.cfg.Tracer.Start(ctx, "append", trace.WithAttributes(attribute.Int("millrace.items", len(items))))
	err := c.cfg.Log.Append(ctx, items)
	span.End()
	if err != nil {
		c.cfg.Logger.Error("envelope not stored", "account", key.Account, "env", key.Env, "items", len(items), "error", err)
		return c.unavailable(w, "The log does not take items at the moment.")
	}
	for i := range items {
		c.metrics.items[items[i].Kind].Inc()
	}
	c.metrics.bytes.Add(float64(len(body)))
	return p
}

// authorize returns the key that a request shows. It comes before anything else, so that nobody without a key can make the
// collector read a body.
func (c *Collector) authorize(w http.ResponseWriter, r *http.Request) (Key, *problem) {
	secret := strings.TrimSpace(r.Header.Get("Authorization"))
	// Most sensors send "Bearer <key>", the Java one the key alone.
	if scheme, rest, found := strings.Cut(secret, " "); found && strings.EqualFold(scheme, "Bearer") {
		secret = strings.TrimSpace(rest)
	}
	detail := "The sensor key is not known, or was revoked."
	if secret == "" {
		detail = "The request has no Authorization header."
	} else {
		key, err := c.cfg.Keys(r.Context(), secret)
		if err == nil {
			return key, nil
		}
		if !errors.Is(err, ErrUnknownKey) {
			c.cfg.Logger.Error("sensor key not looked up", "error", err)
			return Key{}, c.unavailable(w, "The sensor key cannot be checked at the moment.")
		}
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="caliper"`)
	// Else the server would read the body, to find the next request behind it.
	w.Header().Set("Connection", "close")
	_ = http.NewResponseController(w).SetReadDeadline(time.Now())
	return Key{}, &problem{
		Type: "unauthorized", Status: http.StatusUnauthorized, Title: "The request is not authorized", Detail: detail,
		Action: "Send the header Authorization: Bearer <sensor key>. An operator makes keys with millrace key add.",
	}
}

// readBody reads the body as it was sent. With a problem it returns what there is of it to keep.
func (c *Collector) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *problem) {
	// Beyond MaxBody a body is refused; up to what fits into the log it is kept for the operator nevertheless.
	most := c.cfg.Log.MaxItemBytes() - maxTexts
	tooLarge := func(size int64) *problem {
		w.Header().Set("Connection", "close")
		detail := fmt.Sprintf("The body has %d bytes; the limit is %d.", size, c.cfg.MaxBody)
		if size < 0 {
			detail = fmt.Sprintf("The body has more than %d bytes; the limit is %d.", most, c.cfg.MaxBody)
		}
		return &problem{
			Type: "too-large", Status: http.StatusRequestEntityTooLarge, Title: "The body is too large", Detail: detail,
			Action: "Send fewer items in an envelope.",
		}
	}
	if r.ContentLength > int64(most) {
		return nil, tooLarge(r.ContentLength)
	}

	control := http.NewResponseController(w)
	deadline := control.SetReadDeadline(time.Now().Add(c.cfg.ReadTimeout)) // an error in a recorder of a test only
	var in bytes.Buffer
	if r.ContentLength > 0 {
		in.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	_, err := in.ReadFrom(io.LimitReader(r.Body, int64(most)+1))
	body := in.Bytes()
	switch {
	case len(body) > most:
		return nil, tooLarge(-1)
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		return body, &problem{
			Type: "too-slow", Status: http.StatusRequestTimeout, Title: "The body took too long",
			Detail: fmt.Sprintf("After %v there were %d bytes of the body, and not its end.", c.cfg.ReadTimeout, len(body)),
			Action: "Send it again, in smaller envelopes if the connection is slow.",
		}
	case err != nil:
		w.Header().Set("Connection", "close")
		return body, &problem{
			Type: "incomplete", Status: http.StatusBadRequest, Title: "The body is not complete",
			Detail: fmt.Sprintf("The body ended after %d bytes: %v.", len(body), err),
			Action: "Send it again.",
		}
	}
	// The body ended in time. The server goes on reading while the log works, to notice that the client is gone; after an
	// error the deadline stays, and keeps the server from waiting for the rest.
	if deadline == nil {
		_ = control.SetReadDeadline(time.Time{})
	}
	if len(body) > c.cfg.MaxBody {
		return body, tooLarge(int64(len(body)))
	}
	return body, nil
}

// items reads the items of a body.
func (c *Collector) items(r *http.Request, body []byte) ([]record.Item, *problem) {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if mediaType != "application/json" || (err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter)) {
		return nil, &problem{
			Type: "media-type", Status: http.StatusUnsupportedMediaType, Title: "The Content-Type is not supported",
			Detail: fmt.Sprintf("The Content-Type is %q.", clip(r.Header.Get("Content-Type"))),
			Action: "Send Content-Type: application/json.",
		}
	}
	plain, p := c.unpack(r, body)
	if p != nil {
		return nil, p
	}
	envelope, err := caliper.ReadEnvelope(plain)
	switch {
	case errors.Is(err, caliper.ErrUnsupportedVersion):
		return nil, &problem{
			Type: "data-version", Status: http.StatusUnprocessableEntity, Title: "The envelope's dataVersion is not supported",
			Detail: sentence(err),
			Action: "Send events of a version that GET on this URL lists.",
		}
	case err != nil:
		return nil, &problem{
			Type: "malformed-envelope", Status: http.StatusBadRequest, Title: "The body is not a Caliper envelope",
			Detail: sentence(err),
			Action: "POST one JSON object with sensor, sendTime, dataVersion and data, an array of events and entities.",
		}
	case len(envelope.Sensor) > maxText || len(envelope.DataVersion) > maxText:
		return nil, &problem{
			Type: "malformed-envelope", Status: http.StatusBadRequest, Title: "The body is not a Caliper envelope",
			Detail: fmt.Sprintf("The sensor has %d bytes and the dataVersion %d; the limit is %d.", len(envelope.Sensor), len(envelope.DataVersion), maxText),
			Action: "Name the sensor by a short IRI.",
		}
	case len(envelope.Items) > c.cfg.MaxItems:
		return nil, &problem{
			Type: "too-large", Status: http.StatusRequestEntityTooLarge, Title: "The envelope has too many items",
			Detail: fmt.Sprintf("The envelope has %d items; the limit is %d.", len(envelope.Items), c.cfg.MaxItems),
			Action: "Send fewer items in an envelope.",
		}
	}
	items := make([]record.Item, len(envelope.Items))
	for i, in := range envelope.Items {
		if most := c.cfg.Log.MaxItemBytes() - maxTexts; len(in.Raw) > most {
			return nil, &problem{
				Type: "too-large", Status: http.StatusRequestEntityTooLarge, Title: "An item is too large",
				Detail: fmt.Sprintf("Item %d of the envelope has %d bytes; the limit is %d.", i, len(in.Raw), most),
				Action: "Leave large contents out of events and entities, or send a link to them.",
			}
		}
		items[i] = record.Item{
			Sensor: envelope.Sensor, DataVersion: envelope.DataVersion, SendTime: envelope.SendTime,
			Kind: in.Head.Kind, ID: in.Head.ID, Bytes: in.Raw,
		}
		if len(in.Head.ID) > maxText {
			items[i].ID = ""
			in.Err = errors.Join(in.Err, fmt.Errorf("its id has %d bytes; the limit is %d", len(in.Head.ID), maxText))
		}
		if in.Err != nil {
			items[i].Kind, items[i].Reason = record.Reject, clip(in.Err.Error())
		}
	}
	return items, nil
}

// unpack undoes the body's Content-Encoding.
func (c *Collector) unpack(r *http.Request, body []byte) ([]byte, *problem) {
	switch encoding := r.Header.Get("Content-Encoding"); strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "identity":
		return body, nil
	case "gzip", "x-gzip":
	default:
		return nil, &problem{
			Type: "encoding", Status: http.StatusUnsupportedMediaType, Title: "The Content-Encoding is not supported",
			Detail: fmt.Sprintf("The Content-Encoding is %q.", clip(encoding)),
			Action: "Send the body as it is, or with Content-Encoding: gzip.",
		}
	}
	var plain bytes.Buffer
	in, err := gzip.NewReader(bytes.NewReader(body))
	if err == nil {
		_, err = plain.ReadFrom(io.LimitReader(in, int64(c.cfg.MaxDecompressed)+1))
	}
	switch {
	case plain.Len() > c.cfg.MaxDecompressed:
		return nil, &problem{
			Type: "too-large", Status: http.StatusRequestEntityTooLarge, Title: "The body is too large when unpacked",
			Detail: fmt.Sprintf("The body has more than %d bytes when unpacked.", c.cfg.MaxDecompressed),
			Action: "Send fewer items in an envelope.",
		}
	case err != nil:
		return nil, &problem{
			Type: "encoding", Status: http.StatusBadRequest, Title: "The body cannot be unpacked",
			Detail: fmt.Sprintf("The body is not gzip, as its Content-Encoding says: %v.", err),
			Action: "Send the body as it is, or packed by gzip.",
		}
	}
	return plain.Bytes(), nil
}

// clip shortens a text that travels beside an item.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText-3], "") + "…"
}

// sentence makes an error the detail of a problem.
func sentence(err error) string {
	s := clip(err.Error())
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
