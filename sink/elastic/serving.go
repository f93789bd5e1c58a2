package elastic

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"
)

// Which instance of an app readers see. An index has two names for them: <table>--<data version>, which it always has, and, while its
// instance serves, the table's own. The index millrace-lineages has an alias that says which instance serves:
//
//	millrace-serving-<line>-<instance>-<count>       line: what all data versions of an app for one tenant have in common
//
// Whoever gives an index a table's name, or takes it away, replaces that alias by one with the next count in the same request, and fails
// when it is gone. So the names of all tables change hands at one instant, and an index that an instance makes at that moment has its
// table's name or has it not, but never beside those of another instance.
const unversioned = "unversioned"

// mark is the alias that says which instance of a line serves.
type mark struct {
	instance string
	count    uint64
}

// lineKey is what the instances of an app for one tenant have in common, in aliases.
func (s *Sink) lineKey() string {
	c := s.config
	return fmt.Sprintf("%016x", xxh3.HashString(strings.Join([]string{c.Plan.App, c.Account, c.Env}, "\x00")))
}

func (s *Sink) markAlias(m mark) string {
	return fmt.Sprintf("millrace-serving-%s-%s-%d", s.lineKey(), m.instance, m.count)
}

// serving returns the mark of the app, the zero mark when no instance serves.
func (s *Sink) serving(ctx context.Context) (m mark, err error) {
	prefix := "millrace-serving-" + s.lineKey() + "-"
	aliases, err := s.aliases(ctx, "/"+registry+"/_alias/"+prefix+"*")
	if err != nil {
		return m, fmt.Errorf("find out which data version serves: %w", err)
	}
	for alias := range aliases[registry] {
		instance, count, _ := strings.Cut(strings.TrimPrefix(alias, prefix), "-")
		n, err := strconv.ParseUint(count, 10, 64)
		if err != nil {
			return m, fmt.Errorf("index %s has an alias %s that this program does not make: remove it", registry, alias)
		}
		if n >= m.count {
			m = mark{instance, n}
		}
	}
	return m, nil
}

// aliases are those of indices that a path lists.
func (s *Sink) aliases(ctx context.Context, path string) (map[string]map[string]struct{}, error) {
	var answer map[string]struct {
		Aliases map[string]struct{} `json:"aliases"`
	}
	err := s.do(ctx, http.MethodGet, path, nil, &answer)
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusNotFound {
		return nil, nil
	}
	out := map[string]map[string]struct{}{}
	for index, x := range answer {
		out[index] = x.Aliases
	}
	return out, err
}

// replaceMark are the actions that make next of m, and fail as a whole when m is not there any more.
func (s *Sink) replaceMark(m, next mark) []any {
	actions := []any{addAlias(registry, s.markAlias(next))}
	if m.instance != "" {
		actions = append(actions, map[string]any{"remove": map[string]any{"index": registry, "alias": s.markAlias(m), "must_exist": true}})
	}
	return actions
}

// lostMark reports that a mark was not there when it was to be replaced.
func lostMark(err error) bool {
	var status *statusError
	return is(err, "aliases_not_found_exception") ||
		errors.As(err, &status) && status.status < http.StatusInternalServerError && strings.Contains(status.reason, "millrace-serving-")
}

// Serve makes the names of the app's tables those of this instance's indices, and no longer those of the instance that served before, in
// one request: a reader sees the rows of one of the two. It needs no Begin, may be called beside the instances' own sinks, and changes
// nothing when it is so already. An instance whose data version is unversioned serves from its beginning, unless another one does.
func (s *Sink) Serve(ctx context.Context) error {
	if err := s.makeRegistry(ctx); err != nil {
		return err
	}
	for {
		now, err := s.serving(ctx)
		if err != nil {
			return err
		}
		actions, err := s.handOver(ctx, now)
		if err != nil {
			return err
		}
		if now.instance == s.instance && len(actions) == 0 {
			return nil
		}
		actions = append(s.replaceMark(now, mark{s.instance, now.count + 1}), actions...)
		err = s.do(ctx, http.MethodPost, "/_aliases", map[string]any{"actions": actions}, nil)
		// When another one was faster it looks again. When not, too: its sink may have made an index meanwhile that was not to have the name.
		if err != nil && !lostMark(err) {
			return fmt.Errorf("make the data version serve: %w", err)
		}
	}
}

// handOver are the actions that give the tables' names to the instance and take them from the one that has them.
func (s *Sink) handOver(ctx context.Context, now mark) (actions []any, err error) {
	own, err := s.ownIndices(ctx, s.instance)
	if err != nil {
		return nil, err
	}
	for _, index := range slices.Sorted(maps.Keys(own)) {
		t, ok := s.tableOf(index)
		if _, named := own[index][t]; ok && !named {
			actions = append(actions, addAlias(index, t))
		}
	}
	if now.instance == s.instance || now.instance == "" {
		return actions, nil
	}
	before, err := s.ownIndices(ctx, now.instance)
	if err != nil {
		return nil, err
	}
	for _, index := range slices.Sorted(maps.Keys(before)) {
		for _, alias := range slices.Sorted(maps.Keys(before[index])) {
			if !strings.Contains(alias, "-") && strings.HasPrefix(index, alias+"--") { // the table may be one that this instance does not have
				actions = append(actions, removeAlias(index, alias))
			}
		}
	}
	return actions, nil
}

// ownIndices are an instance's indices with all their aliases.
func (s *Sink) ownIndices(ctx context.Context, instance string) (map[string]map[string]struct{}, error) {
	claimed, err := s.aliases(ctx, "/_alias/millrace-"+instance+"-*")
	if err != nil {
		return nil, fmt.Errorf("list the indices of an instance: %w", err)
	}
	out := map[string]map[string]struct{}{}
	for some := range slices.Chunk(slices.Sorted(maps.Keys(claimed)), 20) { // a URL has at most 4 KB
		found, err := s.aliases(ctx, "/"+strings.Join(some, ",")+"/_alias")
		if err != nil {
			return nil, fmt.Errorf("list the names of an instance's indices: %w", err)
		}
		maps.Copy(out, found)
	}
	return out, nil
}

// tableOf is the table of the plan that an index is of.
func (s *Sink) tableOf(index string) (name string, ok bool) {
	for _, t := range s.tables {
		if strings.HasPrefix(index, t.Name+"--") && !t.AppendOnly {
			return t.Name, true
		}
	}
	return "", false
}

// VersionAlias is the name that all indices of a table's data version have, whether it serves or not: quiz_submission--20180827174235.
func VersionAlias(table, dataVersion string) string {
	if dataVersion == "" {
		dataVersion = unversioned
	}
	return table + "--" + strings.ToLower(dataVersion)
}

// nameOwn gives the indices of the instance that have no name of their data version that name: an older version of the program made them.
func (s *Sink) nameOwn(ctx context.Context) error {
	own, err := s.ownIndices(ctx, s.instance)
	if err != nil {
		return err
	}
	var actions []any
	for _, index := range slices.Sorted(maps.Keys(own)) {
		t, ok := s.tableOf(index)
		if _, named := own[index][VersionAlias(t, s.config.Suffix)]; ok && !named {
			actions = append(actions, addAlias(index, VersionAlias(t, s.config.Suffix)))
		}
	}
	for some := range slices.Chunk(actions, 1000) {
		if err := s.do(ctx, http.MethodPost, "/_aliases", map[string]any{"actions": some}, nil); err != nil {
			return fmt.Errorf("name the indices of the instance: %w", err)
		}
	}
	return nil
}

// serveFirst makes an unversioned instance serve when no instance of its app does.
func (s *Sink) serveFirst(ctx context.Context) error {
	if s.config.DataVersion != "" && s.config.DataVersion != unversioned {
		return nil
	}
	if now, err := s.serving(ctx); err != nil || now.instance != "" {
		return err
	}
	return s.Serve(ctx)
}

// nameServing gives an index its table's name while its instance serves.
func (s *Sink) nameServing(ctx context.Context, t *table, index string) error {
	for {
		now, err := s.serving(ctx)
		if err != nil || now.instance != s.instance {
			return err
		}
		actions := append(s.replaceMark(now, mark{s.instance, now.count + 1}), addAlias(index, t.Name))
		err = s.do(ctx, http.MethodPost, "/_aliases", map[string]any{"actions": actions}, nil)
		if err == nil || !lostMark(err) {
			return err
		}
	}
}

// leave takes away the mark that the instance serves, when it does.
func (s *Sink) leave(ctx context.Context) error {
	for {
		now, err := s.serving(ctx)
		if err != nil || now.instance != s.instance {
			return err
		}
		remove := map[string]any{"remove": map[string]any{"index": registry, "alias": s.markAlias(now), "must_exist": true}}
		err = s.do(ctx, http.MethodPost, "/_aliases", map[string]any{"actions": []any{remove}}, nil)
		if err != nil && !lostMark(err) {
			return err
		}
	}
}

// Delete removes the instance's indices and what the target knows of its lineages. When the instance serves, none of its app does afterwards. It needs no
// Begin; nobody may publish to the instance any more.
func (s *Sink) Delete(ctx context.Context) error {
	if err := s.leave(ctx); err != nil {
		return fmt.Errorf("make the data version serve no more: %w", err)
	}
	own, err := s.ownIndices(ctx, s.instance)
	if err != nil {
		return err
	}
	paths := []string{"/" + registry + "/_doc/" + s.instance}
	for _, index := range slices.Sorted(maps.Keys(own)) {
		paths = append(paths, "/"+index)
	}
	for _, path := range paths {
		err := s.do(ctx, http.MethodDelete, path, nil, nil)
		var status *statusError
		if err != nil && (!errors.As(err, &status) || status.status != http.StatusNotFound) {
			return fmt.Errorf("delete %s: %w", strings.TrimPrefix(path, "/"), err)
		}
	}
	return nil
}
