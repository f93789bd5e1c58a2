package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
)

// State is what a Sender remembers between runs. It is saved before a post beyond Intent is sent, so after a crash:
//
//	posts before Cursor       have been acknowledged, and are what Ledger counts
//	posts up to Intent        may have been sent, and are sent again first
//	posts from Intent on      have never been sent
type State struct {
	Format   int    `json:"format"`   // stateFormat
	District string `json:"district"` // fingerprint of the district's Config
	Seed     uint64 `json:"seed"`
	Cursor   Cursor `json:"cursor"`
	Intent   int64  `json:"intent"` // a position, not before Cursor's

	// Flushes are those of the days before the cursor's, by day: they are part of what determines which post has which position.
	Flushes map[int][]int `json:"flushes,omitempty"`

	// Unsure are posts that were sent again because an answer was missing or a failure, or because it is not known whether an
	// earlier run had sent them. It is saved before they are, so that it is never less than what the collector got.
	Unsure []Resent `json:"unsure,omitempty"`
	Ledger Ledger   `json:"ledger"`
}

// Resent is posts that the collector may have got more often than they were acknowledged.
type Resent struct {
	From  int64 `json:"from"` // position of the first
	To    int64 `json:"to"`   // position after the last
	Times int64 `json:"times"`
}

const stateFormat = 2

// Settled reports whether the ledger says all: no post has been sent without an acknowledgement.
func (s State) Settled() bool { return s.Intent <= s.Cursor.Position }

// Delivery is a post and how often the collector has got it.
type Delivery struct {
	Post
	Least, Most int64
}

// Deliveries makes again all posts that may have been sent, in order: those that Ledger counts, and those between Cursor and Intent.
func (s State) Deliveries(cfg Config) (iter.Seq[Delivery], error) {
	d, err := New(cfg)
	if err != nil {
		return nil, err
	}
	d.flushes = map[int][]int{s.Cursor.Day: s.Cursor.Flushes}
	maps.Copy(d.flushes, s.Flushes)
	d.at.Flushes = d.flushes[0]
	return func(yield func(Delivery) bool) {
		for d.at.Position < max(s.Intent, s.Cursor.Position) {
			d := Delivery{Post: d.Next(), Least: 1, Most: 1}
			if d.Position >= s.Cursor.Position {
				d.Least = 0
			}
			for _, r := range s.Unsure {
				if r.From <= d.Position && d.Position < r.To {
					d.Most += r.Times
				}
			}
			if !yield(d) {
				return
			}
		}
	}, nil
}

// ReadState reads the state that a Sender saved. The error matches fs.ErrNotExist when there is none.
func ReadState(path string) (State, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return State{}, fmt.Errorf("read simulator state: %w", err)
	}
	s := State{Ledger: newLedger()}
	dec := json.NewDecoder(bytes.NewReader(data))
	err = dec.Decode(&s)
	if err == nil {
		if _, tail := dec.Token(); !errors.Is(tail, io.EOF) {
			err = errors.New("there is more after the end")
		}
	}
	if err != nil {
		return State{}, fmt.Errorf("simulator state %s is damaged: %w; restore it, or start over in another data directory", path, err)
	}
	if s.Format != stateFormat {
		return State{}, fmt.Errorf("simulator state %s has format %d, this version reads %d; use the version that wrote it", path, s.Format, stateFormat)
	}
	c := s.Cursor
	if c.Position < 0 || c.Day < 0 || c.Index < 0 || int64(c.Index) > c.Position {
		return State{}, fmt.Errorf("simulator state %s is damaged: position %d cannot be post %d of day %d; restore it, or start over in another data directory",
			path, c.Position, c.Index, c.Day)
	}
	return s, nil
}

// loadState returns the saved state, or that of a new district.
func loadState(path string, cfg Config) (State, error) {
	fresh := State{Format: stateFormat, District: cfg.fingerprint(), Seed: cfg.Seed, Ledger: newLedger()}
	if path == "" {
		return fresh, nil
	}
	s, err := ReadState(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return State{}, err
	}
	if s.District != fresh.District {
		return State{}, fmt.Errorf("simulator state %s is of another district (its seed is %d, the one asked for %d): use its settings, or another data directory",
			path, s.Seed, cfg.Seed)
	}
	return s, nil
}

// save replaces the file by one rename; a crash leaves the old state or the new one.
func (s State) save(path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("save simulator state: %w", err)
		}
	}()
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
