package index

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

var acknowledged = map[string]any{"acknowledged": true}

func (s *Server) createIndex(r *request) (reply, error) {
	name := r.vars["index"]
	body, err := r.json()
	if err != nil {
		return reply{}, err
	}
	if err := checkName(name); err != nil {
		return reply{}, err
	}
	x := newIndex(name, s.config.Now())
	for i := range body.obj {
		m := &body.obj[i]
		switch m.key {
		case "mappings":
			err = x.mapping.merge(&m.val)
		case "settings":
			if m.val.kind != kindObject {
				err = unparsable("settings must be an object")
			}
			x.Settings = json.RawMessage(slices.Clone(m.val.raw))
		case "aliases":
			x.aliases, err = parseAliases(&m.val)
		default:
			err = unparsable("unknown key [%s] for create index", m.key)
		}
		if err != nil {
			return reply{}, err
		}
	}
	err = s.writer.change(r.Context(), func(ctx context.Context, tx *sql.Tx, c *catalog) (*catalog, error) {
		if old, ok := c.indices[name]; ok {
			e := refuse(400, "resource_already_exists_exception", "index [%s/%s] already exists", name, old.UUID)
			e.Index = name
			return nil, e
		}
		if len(c.aliased(name)) > 0 {
			return nil, refuse(400, "invalid_index_name_exception", "Invalid index name [%s], already exists as alias", name)
		}
		for a := range x.aliases {
			if err := checkAlias(c, a); err != nil {
				return nil, err
			}
		}
		return s.writer.create(ctx, tx, c, x)
	})
	return reply{body: map[string]any{"acknowledged": true, "shards_acknowledged": true, "index": name}}, err
}

// checkAlias refuses a name that an alias cannot have.
func checkAlias(c *catalog, name string) error {
	if c.indices[name] != nil {
		return refuse(400, "invalid_alias_name_exception", "Invalid alias name [%s]: an index or data stream exists with the same name as the alias", name)
	}
	if err := checkName(strings.ToLower(name)); err != nil {
		return refuse(400, "invalid_alias_name_exception", "Invalid alias name [%s]: %s", name, err)
	}
	return nil
}

func parseAliases(v *value) (map[string]alias, error) {
	if v.kind != kindObject {
		return nil, unparsable("aliases must be an object")
	}
	out := map[string]alias{}
	for i := range v.obj {
		a, err := parseAlias(&v.obj[i].val)
		if err != nil {
			return nil, err
		}
		out[v.obj[i].key] = a
	}
	return out, nil
}

func parseAlias(v *value) (a alias, err error) {
	if v.kind != kindObject {
		return a, unparsable("an alias must be an object")
	}
	for _, m := range v.obj {
		if err := a.option(m); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (a *alias) option(m member) error {
	if m.key != "is_write_index" {
		return unparsable("unsupported option [%s] of an alias", m.key)
	}
	if m.val.kind != kindBool {
		return unparsable("[is_write_index] must be a boolean")
	}
	b := m.val.isTrue()
	a.IsWrite = &b
	return nil
}

func (s *Server) deleteIndex(r *request) (reply, error) {
	for name := range strings.SplitSeq(r.vars["index"], ",") {
		if name == "_all" || strings.Contains(name, "*") {
			return reply{}, illegal("Wildcard expressions or all indices are not allowed")
		}
	}
	err := s.writer.change(r.Context(), func(ctx context.Context, tx *sql.Tx, c *catalog) (*catalog, error) {
		next := c.clone()
		for name := range strings.SplitSeq(r.vars["index"], ",") {
			x, ok := c.indices[name]
			if !ok && len(c.aliased(name)) > 0 {
				return nil, illegal("The provided expression [%s] matches an alias, specify the corresponding concrete indices instead.", name)
			}
			if !ok && r.flag("ignore_unavailable") {
				continue
			}
			if !ok {
				return nil, notFound(name)
			}
			if _, err := tx.ExecContext(ctx, "DROP TABLE "+x.table()); err != nil {
				return nil, fmt.Errorf("drop the table of index %s: %w", name, err)
			}
			if _, err := tx.ExecContext(ctx, "DELETE FROM indices WHERE number = $1", x.Number); err != nil {
				return nil, fmt.Errorf("delete index %s: %w", name, err)
			}
			delete(next.indices, name)
		}
		return next, nil
	})
	return reply{body: acknowledged}, err
}

func (x *index) description() map[string]any {
	settings := map[string]any{
		"creation_date": strconv.FormatInt(x.Created, 10), "number_of_shards": "1", "number_of_replicas": "0", "uuid": x.UUID,
		"provided_name": x.Name, "version": map[string]any{"created": "8500003"},
	}
	return map[string]any{
		"aliases": x.aliases, "mappings": x.mapping.properties(), "settings": map[string]any{"index": settings},
	}
}

func (s *Server) getIndex(r *request) (reply, error) {
	return s.describe(r, lenience{refuseNone: r.lenience().refuseNone, ignoreUnavailable: r.flag("ignore_unavailable")}, (*index).description)
}

func (s *Server) headIndex(r *request) (reply, error) {
	xs, err := s.current().resolve(r.vars["index"], r.lenience())
	if err != nil || len(xs) == 0 {
		return reply{status: 404}, nil
	}
	return reply{}, nil
}

func (s *Server) getMapping(r *request) (reply, error) {
	return s.describe(r, r.lenience(), func(x *index) map[string]any {
		return map[string]any{"mappings": x.mapping.properties()}
	})
}

func (s *Server) describe(r *request, l lenience, f func(*index) map[string]any) (reply, error) {
	xs, err := s.current().resolve(r.vars["index"], l)
	if err != nil {
		return reply{}, err
	}
	out := map[string]any{}
	for _, x := range xs {
		out[x.Name] = f(x)
	}
	return reply{body: out}, nil
}

func (s *Server) putMapping(r *request) (reply, error) {
	if len(r.body) == 0 {
		return reply{}, refuse(400, "parse_exception", "request body is required")
	}
	body, err := r.json()
	if err != nil {
		return reply{}, err
	}
	err = s.writer.change(r.Context(), func(ctx context.Context, tx *sql.Tx, c *catalog) (*catalog, error) {
		xs, err := c.resolve(r.vars["index"], r.lenience())
		if err != nil {
			return nil, err
		}
		for _, x := range xs {
			m := x.mapping.clone()
			if err := m.merge(&body); err != nil {
				return nil, err
			}
			if err := migrate(ctx, tx, x, m); err != nil {
				return nil, err
			}
			grown := x.withMapping(m)
			if err := grown.store(ctx, tx); err != nil {
				return nil, err
			}
			c = c.with(grown)
		}
		return c, nil
	})
	return reply{body: acknowledged}, err
}

func (s *Server) refresh(r *request) (reply, error) {
	xs, err := s.current().resolve(r.vars["index"], r.lenience())
	return reply{body: map[string]any{"_shards": shards{len(xs), len(xs), 0}}}, err
}

func (s *Server) health(r *request) (reply, error) {
	xs, err := s.current().resolve(r.vars["index"], r.lenience())
	n := len(xs)
	return reply{body: map[string]any{
		"cluster_name": "millrace", "status": "green", "timed_out": false, "number_of_nodes": 1, "number_of_data_nodes": 1,
		"active_primary_shards": n, "active_shards": n, "relocating_shards": 0, "initializing_shards": 0, "unassigned_shards": 0,
		"delayed_unassigned_shards": 0, "number_of_pending_tasks": 0, "number_of_in_flight_fetch": 0,
		"task_max_waiting_in_queue_millis": 0, "active_shards_percent_as_number": 100.0,
	}}, err
}

// aliasAction is one of a list that is done as a whole.
type aliasAction struct {
	remove   bool
	optional bool // what is to be removed need not be there
	indices  []string
	aliases  []string
	alias    alias
}

func (s *Server) updateAliases(r *request) (reply, error) {
	body, err := r.json()
	if err != nil {
		return reply{}, err
	}
	var actions []aliasAction
	for i := range body.obj {
		m := &body.obj[i]
		if m.key != "actions" || m.val.kind != kindArray {
			return reply{}, unparsable("[aliases] unknown field [%s]", m.key)
		}
		for j := range m.val.arr {
			a, err := parseAliasAction(&m.val.arr[j])
			if err != nil {
				return reply{}, err
			}
			actions = append(actions, a)
		}
	}
	if len(actions) == 0 {
		return reply{}, illegal("No action specified")
	}
	return s.changeAliases(r, actions)
}

func parseAliasAction(v *value) (a aliasAction, err error) {
	if v.kind != kindObject || len(v.obj) != 1 || v.obj[0].val.kind != kindObject {
		return a, unparsable("an alias action must be an object with one action")
	}
	switch key := v.obj[0].key; key {
	case "add":
	case "remove":
		a.remove = true
	default:
		return a, unparsable("[aliases] unknown field [%s]: only add and remove are supported", key)
	}
	for _, m := range v.obj[0].val.obj {
		names := func() (out []string) {
			if m.val.kind == kindString {
				return []string{m.val.str}
			}
			for _, item := range m.val.arr {
				out = append(out, item.str)
			}
			return out
		}
		switch m.key {
		case "index", "indices":
			a.indices = append(a.indices, names()...)
		case "alias", "aliases":
			a.aliases = append(a.aliases, names()...)
		case "must_exist":
			if !a.remove {
				return a, illegal("[must_exist] is unsupported for [add]")
			}
			a.optional = m.val.kind == kindBool && !m.val.isTrue()
		default:
			if err := a.alias.option(m); err != nil {
				return a, err
			}
		}
	}
	if len(a.indices) == 0 || slices.Contains(a.indices, "") {
		return a, illegal("One of [index] or [indices] is required")
	}
	if len(a.aliases) == 0 || slices.Contains(a.aliases, "") {
		return a, illegal("One of [alias] or [aliases] is required")
	}
	return a, nil
}

// changeAliases does all actions or none.
func (s *Server) changeAliases(r *request, actions []aliasAction) (reply, error) {
	err := s.writer.change(r.Context(), func(ctx context.Context, tx *sql.Tx, c *catalog) (*catalog, error) {
		next := c
		for _, a := range actions {
			xs, err := c.resolve(strings.Join(a.indices, ","), lenience{refuseNone: true})
			if err != nil {
				return nil, err
			}
			for _, name := range a.aliases {
				if next, err = a.do(next, xs, name); err != nil {
					return nil, err
				}
			}
		}
		for _, a := range actions {
			for _, name := range a.aliases {
				if err := checkWriters(next, name); err != nil {
					return nil, err
				}
			}
		}
		for name, x := range next.indices {
			if x == c.indices[name] {
				continue
			}
			if err := x.store(ctx, tx); err != nil {
				return nil, err
			}
		}
		return next, nil
	})
	return reply{body: acknowledged}, err
}

func (a aliasAction) do(c *catalog, xs []*index, name string) (*catalog, error) {
	if !a.remove {
		if err := checkAlias(c, name); err != nil {
			return nil, err
		}
	}
	removed := 0
	for _, x := range xs {
		changed := *c.indices[x.Name]
		changed.aliases = maps.Clone(changed.aliases)
		if changed.aliases == nil {
			changed.aliases = map[string]alias{}
		}
		if a.remove {
			for old := range x.aliases {
				if matches(name, old) {
					delete(changed.aliases, old)
					removed++
				}
			}
		} else {
			changed.aliases[name] = a.alias
		}
		c = c.with(&changed)
	}
	if a.remove && removed == 0 && !a.optional {
		return nil, missingAlias(name)
	}
	return c, nil
}

func missingAlias(name string) *Error {
	return refuse(404, "aliases_not_found_exception", "aliases [%s] missing", name)
}

// checkWriters refuses an alias that two indices are the write index of.
func checkWriters(c *catalog, name string) error {
	var writers []string
	for _, x := range c.aliased(name) {
		if w := x.aliases[name].IsWrite; w != nil && *w {
			writers = append(writers, x.Name)
		}
	}
	if len(writers) > 1 {
		return refuse(400, "illegal_state_exception", "alias [%s] has more than one write index [%s]", name, strings.Join(writers, ","))
	}
	return nil
}

func (s *Server) putAlias(r *request) (reply, error) {
	body, err := r.json()
	if err != nil {
		return reply{}, err
	}
	a, err := parseAlias(&body)
	if err != nil {
		return reply{}, err
	}
	return s.changeAliases(r, []aliasAction{{indices: []string{r.vars["index"]}, aliases: []string{r.vars["alias"]}, alias: a}})
}

func (s *Server) deleteAlias(r *request) (reply, error) {
	return s.changeAliases(r, []aliasAction{{remove: true, indices: []string{r.vars["index"]}, aliases: []string{r.vars["alias"]}}})
}

func (s *Server) getAlias(r *request) (reply, error) {
	xs, err := s.current().resolve(r.vars["index"], r.lenience())
	if err != nil {
		return reply{}, err
	}
	out := map[string]any{}
	pattern, given := r.vars["alias"]
	found := map[string]bool{}
	for _, x := range xs {
		aliases := map[string]alias{}
		for name, a := range x.aliases {
			for p := range strings.SplitSeq(pattern, ",") {
				if !given || p == "_all" || matches(p, name) {
					aliases[name] = a
					found[p] = true
				}
			}
		}
		if !given || len(aliases) > 0 {
			out[x.Name] = map[string]any{"aliases": aliases}
		}
	}
	for p := range strings.SplitSeq(pattern, ",") {
		if given && !found[p] && !strings.Contains(p, "*") {
			body := maps.Clone(out)
			body["error"] = fmt.Sprintf("alias [%s] missing", p)
			body["status"] = 404
			return reply{status: 404, body: body}, nil
		}
	}
	return reply{body: out}, nil
}
