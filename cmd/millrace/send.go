package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"millrace/internal/retry"
	"millrace/sim"
)

// maxEnvelope is the largest envelope that send takes from a file: the collector's own limit.
const maxEnvelope = 10 << 20

// maxWrapped is how many items by themselves share an envelope.
const maxWrapped = 100

// dataVersion11 is the dataVersion of an envelope around items in 1.1 spelling.
const dataVersion11 = "http://purl.imsglobal.org/ctx/caliper/v1p1"

func sendCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "send FILE...",
		Short: "Post envelopes to a collector",
		Long: `Post envelopes to a collector. A file holds one envelope, or one a line (JSON lines); - is standard input. Events and entities
that stand by themselves are wrapped in envelopes, a hundred in each, and keep their bytes. An envelope that the collector refuses
is reported, and the others are sent; the exit code is then 1. Nothing is sent when one of the files cannot be read.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("send needs a file, or - for standard input")
			}
			return nil
		},
	}
	to := cmd.Flags().String("to", "http://"+defaultListen+defaultPrefix, "URL of the collector")
	key := cmd.Flags().String("key", "", "sensor key, as 'millrace key add' printed it (required)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *key == "" {
			return usagef("send needs --key; make one with 'millrace key add'")
		}
		if u, err := url.Parse(*to); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return usagef("--to %q is no URL of a collector: want one such as http://%s/caliper", *to, defaultListen)
		}
		s := sending{
			poster: sim.Poster{URL: *to, Key: *key}, errs: cmd.ErrOrStderr(),
			progress: newProgressLine(cmd.ErrOrStderr()),
		}
		var err error
		if s.total, err = sizeOfFiles(args); err != nil {
			return err
		}
		for _, name := range args {
			if err = s.file(cmd.Context(), name, cmd.InOrStdin()); err != nil {
				break
			}
		}
		s.progress.done()
		fmt.Fprintf(cmd.ErrOrStderr(), "envelopes sent: %d, refused: %d\n", s.sent, s.refused)
		if err == nil && s.refused > 0 {
			err = fmt.Errorf("the collector refused %d of %d envelopes", s.refused, s.sent+s.refused)
		}
		return err
	}
	return cmd
}

// sizeOfFiles sees that all files can be read before anything is sent, and adds up their bytes. It is 0, unknown, with standard input.
func sizeOfFiles(names []string) (total int64, err error) {
	known := true
	for _, name := range names {
		if name == "-" {
			known = false
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w; nothing was sent", name, cause(err))
		}
		info, err := f.Stat()
		if err := errors.Join(err, f.Close()); err != nil {
			return 0, fmt.Errorf("read %s: %w; nothing was sent", name, cause(err))
		}
		if info.IsDir() {
			return 0, fmt.Errorf("%s is a directory; name the files in it; nothing was sent", name)
		}
		known = known && info.Mode().IsRegular()
		total += info.Size()
	}
	if !known {
		return 0, nil
	}
	return total, nil
}

type sending struct {
	poster        sim.Poster
	errs          io.Writer
	progress      *progressLine
	sent, refused int
	done, total   int64 // bytes of the files; total is 0 when it is not known

	// Items by themselves, which wait for an envelope: their first one's place, bytes and version.
	at      string
	items   [][]byte
	wrapped int
	version string
}

// file sends what a file holds: one JSON value, or one a line.
func (s *sending) file(ctx context.Context, name string, stdin io.Reader) error {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, cause(err))
		}
		defer func() { _ = f.Close() }() // it was only read
		in = f
	}
	r := bufio.NewReaderSize(in, 64<<10)
	start := new(bytes.Buffer)
	if _, err := io.CopyN(start, r, maxEnvelope+1); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", name, cause(err))
	}
	if !oneAline(start.Bytes()) {
		if start.Len() > maxEnvelope {
			return fmt.Errorf("%s: an envelope of more than %d MB; the collector takes no more", name, maxEnvelope>>20)
		}
		s.done += int64(start.Len())
		return errors.Join(s.value(ctx, name, bytes.TrimSpace(start.Bytes())), s.flush(ctx))
	}
	lines := bufio.NewScanner(io.MultiReader(start, r))
	lines.Buffer(nil, maxEnvelope)
	n := 0
	for lines.Scan() {
		n++
		s.done += int64(len(lines.Bytes())) + 1
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		if err := s.value(ctx, fmt.Sprintf("%s, line %d", name, n), bytes.Clone(line)); err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%s, line %d: an envelope of more than %d MB; the collector takes no more", name, n+1, maxEnvelope>>20)
	case err != nil:
		return fmt.Errorf("read %s, line %d: %w", name, n+1, cause(err))
	}
	return s.flush(ctx)
}

// oneAline reports whether a file that begins so holds a value a line: it is not one value itself, and one of its first two lines
// is. The second is asked too, so that a file whose first line is broken is not refused as a whole.
func oneAline(b []byte) bool {
	first, rest, _ := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	second, _, _ := bytes.Cut(rest, []byte("\n"))
	return len(rest) > 0 && !json.Valid(b) && (json.Valid(first) || json.Valid(second))
}

// value sends an envelope as it is, and an item by itself in an envelope with the items around it.
func (s *sending) value(ctx context.Context, at string, value []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(value, &members); err != nil || members["data"] != nil || members["type"] == nil && members["@type"] == nil {
		// Whatever this is, the collector says what it thinks of it.
		return errors.Join(s.flush(ctx), s.post(ctx, at, value))
	}
	version := dataVersion11
	if members["@type"] != nil {
		version = ""
	}
	if len(s.items) == maxWrapped || s.wrapped+len(value) > maxEnvelope/2 || len(s.items) > 0 && s.version != version {
		if err := s.flush(ctx); err != nil {
			return err
		}
	}
	if len(s.items) == 0 {
		s.at, s.version = at, version
	}
	s.items = append(s.items, value)
	s.wrapped += len(value)
	return nil
}

// flush sends the items that wait for their envelope. Their bytes stay as they are.
func (s *sending) flush(ctx context.Context) error {
	if len(s.items) == 0 {
		return nil
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"sensor":"urn:millrace:send","sendTime":%q,`, time.Now().UTC().Format("2006-01-02T15:04:05.000Z"))
	if s.version != "" {
		fmt.Fprintf(&b, `"dataVersion":%q,`, s.version)
	}
	b.WriteString(`"data":[`)
	b.Write(bytes.Join(s.items, []byte(",")))
	b.WriteString("]}")
	s.items, s.wrapped = nil, 0
	return s.post(ctx, s.at, b.Bytes())
}

// post posts one envelope. The collector's refusal is said and counted; that it cannot be reached ends the command.
func (s *sending) post(ctx context.Context, at string, body []byte) error {
	var refusal *sim.Refusal
	err := retry.Do(ctx, retry.Policy{Attempts: 5, Max: 2 * time.Second}, func(ctx context.Context) error {
		_, err := s.poster.Post(ctx, body, sim.PostOptions{})
		if errors.As(err, &refusal) && !refusal.Retryable() {
			return retry.Permanent(err)
		}
		return err
	})
	switch {
	case err == nil:
		s.sent++
	case errors.As(err, &refusal) && (refusal.Status == http.StatusNotFound || refusal.Status == http.StatusMethodNotAllowed):
		return fmt.Errorf("%s is no collector: it %w; its URL ends in /caliper", s.poster.URL, refusal)
	case errors.As(err, &refusal) && refusal.Status != http.StatusUnauthorized:
		s.refused++
		s.progress.done()
		fmt.Fprintf(s.errs, "%s: %s\n", at, refusal)
	default:
		return fmt.Errorf("%s was not sent, nor what follows it: %w", at, err)
	}
	s.progress.show("%senvelopes sent: %d, refused: %d", bar(s.done, s.total), s.sent, s.refused)
	return nil
}
