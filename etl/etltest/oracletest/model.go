package oracletest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"millrace/etl"
	"millrace/record"
)

// arrival is a record and the phase in which it came.
type arrival struct {
	item  record.Item
	phase int
}

// result is what must be there in the end: rows and dead letters as text, in order, and how many records are elsewhere.
type result struct {
	rows, letters, counts []string
}

// version is one version of an entity.
type version struct {
	account, typ string
	tree         map[string]any
	from         time.Time
	deleted      bool
	fingerprint  [16]byte
	phase        int
}

// before orders versions: by time, then deletions last, then by content, so that it is decided somehow.
func (v version) before(w version) bool {
	switch {
	case !v.from.Equal(w.from):
		return v.from.Before(w.from)
	case v.deleted != w.deleted:
		return w.deleted
	}
	return bytes.Compare(v.fingerprint[:], w.fingerprint[:]) < 0
}

// model says what the tables must be once all of the arrivals are in. settled: and so much time has gone by that nobody waits.
// once: a record that waits takes the first version that comes in a later phase, for good.
func model(a app, arrivals []arrival, settled, once bool) result {
	m := &modelRun{settled: settled}
	for _, ar := range arrivals {
		if once {
			m.last = max(m.last, ar.phase)
		}
	}
	seen := map[string]int{} // events, by content: the first phase
	var events []arrival
	for _, ar := range arrivals {
		tree := parse(ar.item.Bytes)
		if ar.item.Kind == record.Entity {
			from, ok := timeOf(tree["dateModified"])
			if !ok {
				from = ar.item.SendTime
			}
			m.version(version{account: ar.item.Account, tree: tree, from: from, phase: ar.phase})
			continue
		}
		content := ar.item.Account + string(spell(tree, 0))
		if i, ok := seen[content]; ok {
			events[i].phase = min(events[i].phase, ar.phase)
			continue
		}
		seen[content] = len(events)
		events = append(events, ar)
	}
	for _, e := range events {
		tree := parse(e.item.Bytes)
		object, ok := tree["object"].(map[string]any)
		if !a.harvest || !ok {
			continue
		}
		v := version{account: e.item.Account, tree: object, from: eventTime(e.item, tree), phase: e.phase, deleted: term(tree["action"]) == "Deleted"}
		if from, ok := timeOf(object["dateModified"]); ok && !v.deleted {
			v.from = from
		}
		m.version(v)
	}
	for _, t := range a.tables {
		if t.entity {
			m.entities(t)
		} else {
			m.events(t, events)
		}
		m.counts = append(m.counts, fmt.Sprintf("%s in %d waiting %d dropped %d deleted %d", t.name, m.in, m.waiting, m.dropped, m.deleted))
		m.in, m.waiting, m.dropped, m.deleted = 0, 0, 0, 0
	}
	sort.Strings(m.rows)
	sort.Strings(m.letters)
	return m.result
}

type modelRun struct {
	result
	settled                       bool
	last                          int // phase until which a record may wait
	versions                      []version
	in, waiting, dropped, deleted int
}

func (m *modelRun) version(v version) {
	v.typ = term(v.tree["type"])
	id, hasID := v.tree["id"].(string)
	if hasID && (anonymous(id) || id == v.tree["type"]) {
		return
	}
	var err error
	if v.fingerprint, err = record.Fingerprint(spell(v.tree, 0)); err != nil {
		panic(err)
	}
	m.versions = append(m.versions, v)
}

func (m *modelRun) events(t table, events []arrival) {
	for _, e := range events {
		tree := parse(e.item.Bytes)
		if !slices.Contains(t.types, term(tree["type"])) || (t.actions != nil && !slices.Contains(t.actions, term(tree["action"]))) {
			continue
		}
		docs, at := map[string]any{"event": tree}, eventTime(e.item, tree)
		if !t.unwind {
			m.record(t, e.item.Account, docs, at, e.phase)
			continue
		}
		list, _ := tree["list"].([]any)
		if slices.ContainsFunc(list, func(v any) bool { return v.(map[string]any)["boom"] != nil }) {
			m.in++
			m.letter(t, docs, "flat_map", errBoom.Error())
			continue
		}
		for _, v := range list {
			if item := v.(map[string]any); item["skip"] == nil {
				m.record(t, e.item.Account, map[string]any{"event": tree, "item": item}, at, e.phase)
			}
		}
	}
}

// entities makes a record of each entity's newest version.
func (m *modelRun) entities(t table) {
	newest := map[string]version{}
	for _, v := range m.versions {
		if !isA(v.typ, t.types[0]) {
			continue
		}
		id, ok := v.tree["id"].(string)
		if !ok {
			id = string(v.fingerprint[:])
		}
		id = v.account + " " + id
		old, ok := newest[id]
		switch {
		case !ok || old.before(v):
			newest[id] = v
		case !v.before(old):
			old.phase = min(old.phase, v.phase)
			newest[id] = old
		}
	}
	for _, v := range newest {
		if v.deleted {
			m.in++
			m.deleted++
			continue
		}
		m.record(t, v.account, map[string]any{"entity": v.tree}, v.from, v.phase)
	}
}

// record follows one record through its joins.
func (m *modelRun) record(t table, account string, docs map[string]any, at time.Time, phase int) {
	m.in++
	for _, j := range t.joins {
		key, ok := keyOf(docs, j.eq)
		var found any
		if ok {
			v := m.choose(j, account, key, at, phase)
			for ; v == nil && phase < m.last; v = m.choose(j, account, key, at, phase) {
				phase++
			}
			if v != nil {
				found = v.tree
			} else if !m.settled {
				m.waiting++
				return
			}
		}
		docs[j.field] = found
		if found != nil {
			continue
		}
		switch j.otherwise {
		case etl.EmitNulls:
		case etl.Drop:
			m.dropped++
			return
		case etl.DeadLetter:
			reason := fmt.Sprintf("join %s: no %s came within %s", j.field, j.typ, j.wait)
			if !ok {
				reason = fmt.Sprintf("join %s: the record has no value for %s", j.field, strings.Join(j.eq, " or "))
			}
			m.letter(t, docs, "join", reason)
			return
		}
	}
	if t.required != "" && value(docs, t.required) == nil {
		m.letter(t, docs, "map", t.required+": is missing, and the column is required")
		return
	}
	cells := []any{value(docs, t.base()+".uid"), value(docs, "item.n")}
	for _, c := range t.columns {
		cells = append(cells, value(docs, c))
	}
	required := any("")
	if t.required != "" {
		required = value(docs, t.required)
	}
	m.rows = append(m.rows, fmt.Sprintln(append([]any{t.name, account, at.UnixMicro()}, append(cells, required)...)...))
}

func (m *modelRun) letter(t table, docs map[string]any, stage, reason string) {
	m.letters = append(m.letters, fmt.Sprintln(t.name, stage, t.base(), string(spell(docs[t.base()], 0)), []string{reason}))
}

// choose returns the version that is valid at a time, or the earliest if all are later; nil when there is none.
func (m *modelRun) choose(j join, account, key string, at time.Time, phase int) *version {
	var valid, later *version
	for i := range m.versions {
		v := &m.versions[i]
		if v.phase > phase || v.account != account || !isA(v.typ, j.typ) || !filed(v.tree, j.on, key) {
			continue
		}
		switch {
		case !v.from.After(at):
			if valid == nil || valid.before(*v) {
				valid = v
			}
		case !v.deleted && (later == nil || v.before(*later)):
			later = v
		}
	}
	switch {
	case valid == nil:
		return later
	case valid.deleted:
		return nil
	}
	return valid
}

// filed reports whether an entity has the key: one alternative of each path.
func filed(tree map[string]any, on []string, key string) bool {
	parts := strings.Split(key, "\n")
	for i, alternatives := range on {
		found := false
		for _, p := range strings.Split(alternatives, "|") {
			part, ok := keyPart(value(map[string]any{"entity": tree}, p))
			found = found || ok && part == parts[i]
		}
		if !found {
			return false
		}
	}
	return true
}

// keyOf returns the values that a record is joined by.
func keyOf(docs map[string]any, eq []string) (string, bool) {
	parts := make([]string, len(eq))
	for i, p := range eq {
		var ok bool
		if parts[i], ok = keyPart(value(docs, p)); !ok {
			return "", false
		}
	}
	return strings.Join(parts, "\n"), true
}

func keyPart(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, !anonymous(v)
	case float64:
		return fmt.Sprint(v), true
	}
	return "", false
}

// value returns the first alternative of a path that is set.
func value(docs map[string]any, path string) any {
	for _, p := range strings.Split(path, "|") {
		steps := strings.Split(p, ".")
		v := docs[steps[0]]
		for _, s := range steps[1:] {
			switch tree := v.(type) {
			case map[string]any:
				v = tree[s]
			case string:
				if s != "id" {
					v = nil
				}
			default:
				v = nil
			}
		}
		if v != nil {
			return v
		}
	}
	return nil
}

func anonymous(id string) bool {
	return id == "" || strings.HasPrefix(id, "_:") || term(id) != id
}

func isA(typ, of string) bool {
	return typ == of || typ == "Assessment" && of == "AssignableDigitalResource"
}

func term(v any) string {
	s, _ := v.(string)
	if strings.HasPrefix(s, "http://purl.imsglobal.org/") {
		return s[strings.LastIndexAny(s, "/#")+1:]
	}
	return s
}

func timeOf(v any) (time.Time, bool) {
	s, _ := v.(string)
	t, err := time.Parse(time.RFC3339, s)
	return t, err == nil
}

func eventTime(it record.Item, tree map[string]any) time.Time {
	if t, ok := timeOf(tree["eventTime"]); ok {
		return t
	}
	return it.SendTime
}

func parse(doc []byte) map[string]any {
	var tree map[string]any
	if err := json.Unmarshal(doc, &tree); err != nil {
		panic(err)
	}
	return tree
}
