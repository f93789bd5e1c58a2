package elastic

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"

	"millrace/plan"
	"millrace/sink"
)

// How an instance's indices are claimed. Each index has an alias that all writes go through:
//
//	millrace-<instance>-<index>-<token>-<claim>      instance and index hashed; claim counts from 0
//
// A later lineage replaces it by its own, in one request of the target, and requests through the old one fail from then on.
// The same name with -settled says that what older lineages left in the index has been taken back. A document in the index
// millrace-lineages, versioned by the token, says who has claimed the instance: it decides between two that begin at
// once, and whether an index that was made meanwhile may be.
const registry = "millrace-lineages"

// settledSuffix ends the name of the alias that says that a claim is complete.
const settledSuffix = "-settled"

// claim is the right to write an index.
type claim struct {
	alias   string
	token   uint64
	count   uint64 // of claims of the index before
	settled bool
}

// A version is 63 bits.
var (
	revBits   = bits.Len64(plan.MaxRev)
	maxClaims = uint64(1)<<(63-revBits) - 1 // how often an index can be claimed anew
)

// version is that of a document with a row's revision.
func (c claim) version(rev uint64) uint64 { return c.count<<revBits | rev }

// settledAlias is the name that says that the claim is complete.
func (c claim) settledAlias() string { return c.alias + settledSuffix }

// instanceKey is an instance's name in aliases: what its indices have in common, and no other instance's.
func instanceKey(c Config) string {
	key := strings.Join([]string{c.Plan.App, c.Account, c.Env, c.DataVersion}, "\x00")
	return fmt.Sprintf("%016x", xxh3.HashString(key))
}

func (s *Sink) newClaim(index string, count uint64) claim {
	return claim{
		alias: fmt.Sprintf("millrace-%s-%016x-%d-%d", s.instance, xxh3.HashString(index), s.lineage.Token, count),
		token: s.lineage.Token, count: count,
	}
}

// parseClaim reads an alias of the instance; ok is false when it is not one.
func (s *Sink) parseClaim(alias string) (c claim, ok bool) {
	name, settled := strings.CutSuffix(alias, settledSuffix)
	parts := strings.Split(name, "-")
	if len(parts) != 5 || parts[0] != "millrace" || parts[1] != s.instance {
		return c, false
	}
	token, err1 := strconv.ParseUint(parts[3], 10, 64)
	count, err2 := strconv.ParseUint(parts[4], 10, 64)
	return claim{alias: name, token: token, count: count, settled: settled}, err1 == nil && err2 == nil
}

// registered is the document of an instance in the registry.
type registered struct {
	Instance string `json:"instance"`
	Lineage  string `json:"lineage"`
	Token    uint64 `json:"token"`
}

func (s *Sink) readRegistry(ctx context.Context) (registered, error) {
	var doc struct {
		Source registered `json:"_source"`
	}
	err := s.do(ctx, http.MethodGet, "/"+registry+"/_doc/"+s.instance, nil, &doc)
	if err != nil {
		err = fmt.Errorf("read who has claimed the instance from index %s: %w", registry, err)
	}
	return doc.Source, err
}

// makeRegistry makes the registry when there is none.
func (s *Sink) makeRegistry(ctx context.Context) error {
	err := s.do(ctx, http.MethodPut, "/"+registry, map[string]any{"mappings": map[string]any{
		"dynamic": "strict",
		"properties": map[string]any{
			"instance": map[string]string{"type": "keyword"}, "lineage": map[string]string{"type": "keyword"}, "token": map[string]string{"type": "long"},
		},
	}}, nil)
	if err != nil && !is(err, "resource_already_exists_exception") {
		return fmt.Errorf("make index %s: %w", registry, err)
	}
	return nil
}

// register claims the instance.
func (s *Sink) register(ctx context.Context, l sink.Lineage) error {
	if err := s.makeRegistry(ctx); err != nil {
		return err
	}
	path := fmt.Sprintf("/%s/_doc/%s?version=%d&version_type=external", registry, s.instance, l.Token)
	name := strings.Join([]string{s.config.Plan.App, s.config.Account, s.config.Env, s.config.DataVersion}, "/")
	err := s.do(ctx, http.MethodPut, path, registered{name, l.ID, l.Token}, nil)
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusConflict {
		return s.stillFirst(ctx)
	}
	if err != nil {
		err = fmt.Errorf("claim the instance in index %s: %w", registry, err)
	}
	return err
}

// stillFirst returns an error unless the instance is the lineage's.
func (s *Sink) stillFirst(ctx context.Context) error {
	now, err := s.readRegistry(ctx)
	if err == nil && (now.Token != s.lineage.Token || now.Lineage != s.lineage.ID) {
		err = fmt.Errorf("lineage %s (token %d) has claimed the instance and %s wants to write: %w", now.Lineage, now.Token, s.lineage.ID, sink.ErrFenced)
	}
	return err
}

// lost says why an index could not be reached by its alias.
func (s *Sink) lost(ctx context.Context, f *failure) error {
	if err := s.stillFirst(ctx); err != nil {
		return err
	}
	return fmt.Errorf("an index of the instance, or its alias, was removed: %s; restore it, or go back to a savepoint to have it filled again", f)
}

// checkAliases looks whether aliases are there through which documents are to be deleted. The targets check that by themselves
// when a document is to be written, but make an index of the name when one is to be deleted.
func (s *Sink) checkAliases(ctx context.Context, aliases map[string]bool) error {
	for alias := range aliases {
		err := s.do(ctx, http.MethodGet, "/_alias/"+alias, nil, nil)
		var status *statusError
		if errors.As(err, &status) && status.status == http.StatusNotFound {
			return s.lost(ctx, &failure{Type: "aliases_not_found", Reason: alias})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func addAlias(index, alias string) any {
	return map[string]any{"add": map[string]string{"index": index, "alias": alias}}
}

func removeAlias(index, alias string) any {
	return map[string]any{"remove": map[string]string{"index": index, "alias": alias}}
}

// found lists the claims on indices. That of another instance is an error: two instances cannot share an index.
func (s *Sink) found(ctx context.Context, path string) (map[string][]claim, error) {
	var answer map[string]struct {
		Aliases map[string]struct{} `json:"aliases"`
	}
	err := s.do(ctx, http.MethodGet, path, nil, &answer)
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusNotFound {
		return map[string][]claim{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the indices of the instance: %w", err)
	}
	out := map[string][]claim{}
	for index, x := range answer {
		for _, alias := range slices.Sorted(maps.Keys(x.Aliases)) {
			c, ok := s.parseClaim(alias)
			if !ok {
				return nil, fmt.Errorf("index %s belongs to another instance, as its alias %s says: write to another data version", index, alias)
			}
			out[index] = append(out[index], c)
		}
	}
	return out, nil
}

// claimIndices takes the indices that path lists from older lineages, and only. It looks again until nothing is left to do: another
// lineage that begins at the same time has either been seen here, or will see this one's alias and that it is older.
func (s *Sink) claimIndices(ctx context.Context, path string, only ...string) error {
	for {
		found, err := s.found(ctx, path)
		if err != nil {
			return err
		}
		for _, index := range only {
			found[index] = append([]claim{}, found[index]...)
		}
		var actions []any
		for _, index := range slices.Sorted(maps.Keys(found)) {
			more, err := s.claimIndex(ctx, index, found[index])
			if err != nil {
				return err
			}
			actions = append(actions, more...)
		}
		if len(actions) == 0 {
			return nil
		}
		for some := range slices.Chunk(actions, 1000) {
			err := s.do(ctx, http.MethodPost, "/_aliases", map[string]any{"actions": some}, nil)
			if err != nil && !is(err, "aliases_not_found_exception") { // another one was faster; look again
				return fmt.Errorf("claim the indices of the instance: %w", err)
			}
		}
	}
}

// claimIndex notes the claim on an index, or returns what is left to do for it.
func (s *Sink) claimIndex(ctx context.Context, index string, found []claim) (actions []any, err error) {
	var own *claim
	next := uint64(0)
	for _, c := range found {
		name := c.alias
		if c.settled {
			name = c.settledAlias()
		}
		switch {
		case c.token > s.lineage.Token:
			return nil, s.withdraw(ctx, index, found)
		case c.token < s.lineage.Token:
			actions = append(actions, removeAlias(index, name))
			next = max(next, c.count+1)
		case own == nil:
			own = &c
		default:
			own.settled = own.settled || c.settled
		}
	}
	if next > maxClaims {
		return nil, fmt.Errorf("index %s was claimed %d times, more than its versions can tell apart: write to a new data version", index, next)
	}
	switch {
	case own == nil:
		actions = append(actions, addAlias(index, s.newClaim(index, next).alias))
	case len(actions) == 0:
		s.claims[index] = *own
	}
	return actions, nil
}

// withdraw takes the lineage's own claim off an index that a later one holds.
func (s *Sink) withdraw(ctx context.Context, index string, found []claim) error {
	for _, c := range found {
		if c.token != s.lineage.Token || c.settled {
			continue
		}
		err := s.do(ctx, http.MethodPost, "/_aliases", map[string]any{"actions": []any{removeAlias(index, c.alias)}}, nil)
		if err != nil && !is(err, "aliases_not_found_exception") {
			return err
		}
	}
	return fmt.Errorf("a later lineage than %s has claimed index %s: %w", s.lineage.ID, index, sink.ErrFenced)
}
