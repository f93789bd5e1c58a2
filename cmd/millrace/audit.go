package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/control"
	"millrace/control/api"
)

// auditPath answers with the audit log: the newest entries, or those before ?before=id.
const auditPath = "/api/v1/audit"

// auditPage is how many entries one answer has at most.
const auditPage = 1000

func (s *stack) serveAudit(w http.ResponseWriter, r *http.Request) {
	before, err := int64(0), error(nil)
	if text := r.URL.Query().Get("before"); text != "" {
		before, err = strconv.ParseInt(text, 10, 64)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	answer := func(status int, kind string, body any) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(body); err != nil {
			s.cfg.logger.Debug("answer not written", "path", r.URL.Path, "error", err)
		}
	}
	if err != nil {
		answer(http.StatusBadRequest, "application/problem+json", api.Problem{
			Title: http.StatusText(http.StatusBadRequest), Status: http.StatusBadRequest, Detail: "before=" + r.URL.Query().Get("before") + ": want the id of an entry",
		})
		return
	}
	all, err := s.store.Audit.List(r.Context(), before, auditPage)
	if err != nil {
		s.cfg.logger.Error("request failed", "path", r.URL.Path, "error", err)
		answer(http.StatusInternalServerError, "application/problem+json", api.Problem{
			Title: http.StatusText(http.StatusInternalServerError), Status: http.StatusInternalServerError, Detail: err.Error(),
		})
		return
	}
	if all == nil {
		all = []control.Entry{}
	}
	answer(http.StatusOK, "application/json", all)
}

// withStore opens the control store of the command's data directory, whether or not a stack uses it: it finds what changes in the same file.
func withStore(cmd *cobra.Command, fn func(*control.Store) error) (err error) {
	path := dataDirFlag(cmd)
	dir, err := openDataDir(path)
	if errors.Is(err, errInUse) {
		dir, err = readDataDir(path)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	store, err := control.Open(dir.join("keys.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return fn(store)
}

func auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "List who changed what, or was refused, the newest first",
		Long: `List who changed what, or was refused, the newest first: operations on instances, tokens and sensor keys. The log is only added to.
-o csv and jsonl print all of it.`,
		Args: exactArgs(),
	}
	output := outputFlag(cmd, "table", "csv", "jsonl")
	before := cmd.Flags().Int64("before", 0, "list entries before this one; default: the newest")
	limit := cmd.Flags().Int("limit", 100, "list so many at most, in a table")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		if *limit < 1 {
			return usagef("--limit %d: want 1 or more", *limit)
		}
		return withAudit(cmd, func(list auditLister) error {
			if format == "table" {
				all, err := list(cmd.Context(), *before, *limit)
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "ID\tTIME\tWHO\tROLE\tFROM\tACTION\tOF\tOUTCOME\tREASON")
				for _, e := range all {
					fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.ID, e.At.Format(time.RFC3339), e.Who, e.Role, e.Remote, e.Action, e.Subject, e.Outcome, e.Reason)
				}
				return w.Flush()
			}
			return exportAudit(cmd, list, format, *before)
		})
	}
	return cmd
}

// auditLister lists entries before one, 0 for the newest, and so many at most, of which there may be more than auditPage.
type auditLister func(ctx context.Context, before int64, limit int) ([]control.Entry, error)

// withAudit gives fn the audit log of what is asked: that of the data directory is read also when nothing uses it.
func withAudit(cmd *cobra.Command, fn func(auditLister) error) error {
	t, err := askedBy(cmd)
	if err != nil {
		return err
	}
	if !t.isRemote() {
		return withStore(cmd, func(store *control.Store) error { return fn(store.Audit.List) })
	}
	c, err := remoteClient(t)
	if err != nil {
		return err
	}
	return fn(func(ctx context.Context, before int64, limit int) (all []control.Entry, err error) {
		for len(all) < limit {
			path := auditPath
			if before > 0 {
				path += "?before=" + strconv.FormatInt(before, 10)
			}
			var page []control.Entry
			if err := c.do(ctx, http.MethodGet, path, nil, &page); err != nil {
				return nil, err
			}
			all = append(all, page...)
			if len(page) < auditPage {
				break
			}
			before = page[len(page)-1].ID
		}
		return all[:min(limit, len(all))], nil
	})
}

// exportAudit prints the whole log.
func exportAudit(cmd *cobra.Command, list auditLister, format string, before int64) error {
	rows := csv.NewWriter(cmd.OutOrStdout())
	lines := json.NewEncoder(cmd.OutOrStdout())
	if format == "csv" {
		if err := rows.Write([]string{"id", "at", "who", "role", "remote", "action", "subject", "reason", "outcome"}); err != nil {
			return err
		}
	}
	for {
		all, err := list(cmd.Context(), before, auditPage)
		if err != nil {
			return err
		}
		for _, e := range all {
			if format == "csv" {
				err = rows.Write([]string{strconv.FormatInt(e.ID, 10), e.At.Format(time.RFC3339Nano), e.Who, e.Role, e.Remote, e.Action, e.Subject, e.Reason, e.Outcome})
			} else {
				err = lines.Encode(e)
			}
			if err != nil {
				return err
			}
			before = e.ID
		}
		if len(all) < auditPage {
			rows.Flush()
			return rows.Error()
		}
	}
}
