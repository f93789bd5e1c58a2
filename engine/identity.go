package engine

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"millrace/plan"
)

// stateFormat is the version of everything under a job's directory that is made now. A directory keeps its format; one before
// oldestFormat or after stateFormat is refused.
const (
	stateFormat  = 4
	oldestFormat = 2

	formatPacked = 3 // the first that packs what keys hold, see packer
	formatHeld   = 4 // the first that knows items that must not go early, see plan.Expiring
)

// checkFormat refuses a format that this version does not read, of what, which lies in dir.
func checkFormat(what, dir string, format int) error {
	if format < oldestFormat || format > stateFormat {
		return fmt.Errorf("%s %s has format %d and this version of the engine reads formats %d to %d", what, dir, format, oldestFormat, stateFormat)
	}
	return nil
}

// identity says whose state a directory holds, and which plan it was last opened with. It is written when the directory is made
// and when the plan changes, with all that the change does to the state, in one commit.
type identity struct {
	Format    int               `json:"format"`
	App       string            `json:"app"`
	Instance  string            `json:"instance"`
	KeyGroups int               `json:"key_groups"`
	Stages    map[string]uint16 `json:"stages"` // keyed stages by name; ids are never used again
	NextStage uint16            `json:"next_stage"`
	Plan      plan.Description  `json:"plan"`
	Past      []pastTable       `json:"past,omitempty"` // of tables that rows in the outbox were written for; oldest first
}

// pastTable is how rows of a table look that are in the outbox since before the plan changed.
type pastTable struct {
	Name   string          `json:"name"`
	Until  uint64          `json:"until"` // last epoch whose rows look like this
	Schema json.RawMessage `json:"schema"`
	Now    string          `json:"now"` // the table's name after that epoch
}

// refused reports why a plan cannot go on with the state; nil when it can.
func (id identity) refused(c Config) error {
	if err := checkFormat("job directory", c.Dir, id.Format); err != nil {
		return err
	}
	switch {
	case id.App != c.Plan.App:
		return fmt.Errorf("job directory %s holds the state of app %s, not of %s", c.Dir, id.App, c.Plan.App)
	case id.Instance != c.Instance:
		return fmt.Errorf("job directory %s holds the state of instance %s, not of %s", c.Dir, id.Instance, c.Instance)
	case c.KeyGroups != 0 && id.KeyGroups != c.KeyGroups:
		return fmt.Errorf("job directory %s has %d key groups and %d are configured; the number is fixed once an instance exists", c.Dir, id.KeyGroups, c.KeyGroups)
	}
	return nil
}

// ComparePlan says what it means for the job whose directory, checkpoint or savepoint dir is to go on as plan p, and changes nothing
// there. A nil fs is the operating system's. A job's directory must not be in use; its savepoints may be asked at any time.
func ComparePlan(fs vfs.FS, dir string, p *plan.Plan) (plan.Comparison, error) {
	c := Config{FS: fs, Dir: dir, Plan: p}.withDefaults()
	if _, err := c.FS.Stat(c.FS.PathJoin(dir, manifestName)); err == nil {
		m, err := ReadManifest(c.FS, dir)
		if err != nil {
			return plan.Comparison{}, err
		}
		return plan.Compare(m.Plan, p.Describe(), func(stage string) bool { return slices.Contains(m.Stages, stage) }), nil
	}
	var out plan.Comparison
	found, err := readIdentity(c, func(s *state) (err error) {
		if err := checkFormat("job directory", c.Dir, s.id.Format); err != nil {
			return err
		}
		out, err = s.compare(c)
		return err
	})
	if err == nil && !found {
		err = fmt.Errorf("%s is neither a job's directory nor a savepoint", dir)
	}
	return out, err
}

// CheckPlan refuses a plan that cannot go on with the state in dir, if there is any, as Open does, and changes nothing. It is for those
// who change something before they open a job, as sinks do with their targets. A nil fs is the operating system's.
func CheckPlan(fs vfs.FS, dir, instance string, p *plan.Plan) error {
	c := Config{FS: fs, Dir: dir, Instance: instance, Plan: p}.withDefaults()
	c.KeyGroups = 0 // any
	return checkPlan(c)
}

// checkPlan refuses a plan that cannot go on with the state in the directory, before anything is changed there.
func checkPlan(c Config) error {
	_, err := readIdentity(c, func(s *state) error {
		if err := s.id.refused(c); err != nil {
			return err
		}
		changes, err := s.compare(c)
		if err != nil {
			return err
		}
		if err := changes.Err(); err != nil {
			return fmt.Errorf("job directory %s: %w", c.Dir, err)
		}
		return nil
	})
	return err
}

// readIdentity calls f with the state of a directory, opened for reading and with its identity. Not found: there is no state yet,
// or it cannot be read, of which opening it for writing knows more.
func readIdentity(c Config, f func(*state) error) (found bool, err error) {
	if _, err := c.FS.Stat(stateDir(c.FS, c.Dir)); err != nil {
		return false, nil //nolint:nilerr // there is none
	}
	s := &state{fault: newFault(c.Dir)}
	if s.db, err = openDB(c, s.fault, true); err != nil {
		if errors.Is(err, pebble.ErrDBDoesNotExist) {
			err = nil
		}
		return false, err
	}
	err = s.guard(c.Dir, func() error {
		var err error
		if found, err = s.getJSON(keyIdentity, &s.id); err != nil || !found {
			return err
		}
		return f(s)
	})
	return found, errors.Join(err, s.close())
}

// compare says what it means to go on as the configured plan.
func (s *state) compare(c Config) (plan.Comparison, error) {
	var failed error
	out := plan.Compare(s.id.Plan, c.Plan.Describe(), func(stage string) bool {
		holds, err := s.holds(s.id.Stages[stage])
		failed = errors.Join(failed, err)
		return holds
	})
	if failed != nil || len(out.RemovedTables) == 0 {
		return out, failed
	}
	rows, err := s.unpublished(c)
	if err != nil {
		return out, err
	}
	for _, table := range out.RemovedTables {
		if n := rows[table]; n > 0 {
			out.Changes = append(out.Changes, plan.Change{
				What: "table " + table + " removed", Refused: true,
				Meaning: fmt.Sprintf("%d rows of it are not published yet: run version %s until they are", n, out.From),
			})
		}
	}
	return out, nil
}

// unpublished counts the rows in the outbox that some sink has not published, by the table's name in the stored plan.
func (s *state) unpublished(c Config) (map[string]int, error) {
	entries, err := readEntries(s)
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	low := uint64(1<<64 - 1)
	err = s.scan([]byte{kindSink}, func(k, v []byte) error {
		var p position
		if err := json.Unmarshal(v, &p); err != nil {
			return fmt.Errorf("read position of sink %s: %w", k[1:], err)
		}
		low = min(low, p.Epoch)
		return nil
	})
	if err != nil {
		return nil, err
	}
	stored := &plan.Plan{App: s.id.App, Version: s.id.Plan.Version}
	for _, t := range s.id.Plan.Tables {
		schema, err := plan.ParseAvro(t.Schema)
		if err != nil {
			return nil, err
		}
		stored.Tables = append(stored.Tables, plan.Table{Name: t.Name, Schema: schema})
	}
	o := &outbox{fs: c.FS, dir: c.FS.PathJoin(c.Dir, "outbox"), past: s.id.Past}
	rows := map[string]int{}
	for _, e := range entriesAfter(entries, low) {
		f, err := o.openSegment(e.Segment)
		if err != nil {
			return nil, err
		}
		some, err := o.read(nil, stored, f, e)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		for i := range some {
			rows[stored.Tables[some[i].Table].Name]++
		}
	}
	return rows, nil
}

// identify checks that the state is the plan's and the instance's, and changes it to what the plan is now.
func (s *state) identify(c Config) error {
	found, err := s.getJSON(keyIdentity, &s.id)
	if err != nil {
		return err
	}
	if !found {
		// The outbox is made after the identity is committed.
		if _, err := c.FS.Stat(c.FS.PathJoin(c.Dir, "outbox")); err == nil {
			return &damageError{c.Dir, errors.New("it does not say whose it is any more")}
		}
		s.id = identity{Format: stateFormat, App: c.Plan.App, Instance: c.Instance, KeyGroups: c.KeyGroups, Stages: map[string]uint16{}}
		s.addStages(c.Plan)
		s.id.Plan = c.Plan.Describe()
		b := s.db.NewBatch()
		defer b.Close()
		if err := setJSON(b, keyIdentity, s.id); err != nil {
			return err
		}
		return s.commit(b)
	}
	if err := s.id.refused(c); err != nil {
		return err
	}
	now := c.Plan.Describe()
	if same, err := sameJSON(s.id.Plan, now); err != nil || same {
		return err
	}
	changes, err := s.compare(c)
	if err != nil {
		return err
	}
	if err := changes.Err(); err != nil {
		return fmt.Errorf("job directory %s: %w", c.Dir, err)
	}
	for _, ch := range changes.Changes {
		c.Logger.Info("plan changed", "what", ch.What, "meaning", ch.Meaning, "from_version", changes.From, "app_version", changes.To)
	}
	return s.migrate(c, changes, now)
}

// migrate makes the changes to a plan in the state: one commit, then the space of what was given up is freed.
func (s *state) migrate(c Config, changes plan.Comparison, now plan.Description) error {
	b := s.db.NewBatch()
	defer b.Close()
	id := s.id
	id.Stages = maps.Clone(id.Stages)
	var gone [][]byte
	for _, name := range changes.RemovedStages {
		dictionaries := binary.BigEndian.AppendUint16(slices.Clone(keyDictionary), id.Stages[name])
		for _, prefix := range append(stagePrefixes(id.Stages[name]), dictionaries) {
			if err := b.DeleteRange(prefix, after(prefix), nil); err != nil {
				return err
			}
			gone = append(gone, prefix)
		}
		delete(id.Stages, name)
	}
	for old, name := range changes.RenamedStages {
		id.Stages[name] = s.id.Stages[old]
		delete(id.Stages, old)
	}
	if err := s.renameCounters(b, c.Plan); err != nil {
		return err
	}
	var err error
	if id.Past, err = s.pastTables(changes, now); err != nil {
		return err
	}
	id.Plan = now
	s.id = id
	s.addStages(c.Plan)
	if err := setJSON(b, keyIdentity, s.id); err != nil {
		return err
	}
	if err := s.commit(b); err != nil {
		return err
	}
	return s.free(gone)
}

// free gives back the space of keys that a commit has deleted, by their prefixes. Like commit it ends when a flush keeps failing.
func (s *state) free(prefixes [][]byte) error {
	if len(prefixes) == 0 {
		return nil
	}
	done := make(chan error, 1)
	go func() {
		err := s.db.Flush()
		for _, prefix := range prefixes {
			if err == nil {
				err = s.db.Compact(context.Background(), prefix, after(prefix), false)
			}
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("free the state of removed stages: %w", err)
		}
		return nil
	case <-s.fault.raised:
		return s.fault.get()
	}
}

// addStages gives the plan's new keyed stages their ids.
func (s *state) addStages(p *plan.Plan) {
	for _, st := range p.Stages {
		if st.Keyed == nil {
			continue
		}
		if _, ok := s.id.Stages[st.Name]; !ok {
			s.id.NextStage++
			s.id.Stages[st.Name] = s.id.NextStage
		}
	}
}

// renameCounters lets counters go on under the names that the plan gives them.
func (s *state) renameCounters(b *pebble.Batch, p *plan.Plan) error {
	counters, err := s.counters()
	if err != nil {
		return err
	}
	for _, old := range slices.Sorted(maps.Keys(p.Renamed)) {
		n, had := counters[old]
		name := p.Renamed[old]
		_, has := counters[name]
		if _, wanted := p.Counter(name); !had || has || !wanted {
			continue
		}
		if err := b.Set(append([]byte{kindCounter}, name...), binary.AppendVarint(nil, n), nil); err != nil {
			return err
		}
		if err := b.Delete(append([]byte{kindCounter}, old...), nil); err != nil {
			return err
		}
	}
	return nil
}

// pastTables remembers, for the rows that are in the outbox, what the tables were like that change now.
func (s *state) pastTables(changes plan.Comparison, now plan.Description) ([]pastTable, error) {
	entries, err := readEntries(s)
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	past := slices.DeleteFunc(slices.Clone(s.id.Past), func(p pastTable) bool { return p.Until < entries[0].Epoch })
	for _, t := range s.id.Plan.Tables {
		name := t.Name
		if to, ok := changes.RenamedTables[name]; ok {
			name = to
		}
		next, ok := now.Table(name)
		if !ok {
			continue // removed, with all of its rows published
		}
		if same, err := sameJSON(t.Schema, next.Schema); err != nil {
			return nil, err
		} else if same && name == t.Name {
			continue
		}
		past = append(past, pastTable{Name: t.Name, Until: entries[len(entries)-1].Epoch, Schema: t.Schema, Now: name})
	}
	return past, nil
}

// resolve returns the table of p that rows of a block are for, by the name that the block has for it, and how their values become
// the table's; nil when they are already.
func resolve(p *plan.Plan, past []pastTable, name string, epoch uint64) (table int, conv *plan.Conversion, ok bool, err error) {
	var written json.RawMessage
	for _, t := range past {
		if t.Name == name && epoch <= t.Until {
			if written == nil {
				written = t.Schema
			}
			name = t.Now
		}
	}
	if table, ok = p.Table(name); !ok || written == nil {
		return table, nil, ok, nil
	}
	schema, err := plan.ParseAvro(written)
	if err != nil {
		return 0, nil, false, err
	}
	conv, err = plan.NewConversion(schema, p.Tables[table].Schema)
	return table, conv, true, err
}

func sameJSON(a, b any) (bool, error) {
	x, err := json.Marshal(a)
	if err != nil {
		return false, err
	}
	y, err := json.Marshal(b)
	return string(x) == string(y), err
}

// stagePrefixes are the prefixes of all keys of a stage's state.
func stagePrefixes(stage uint16) [][]byte {
	id := binary.BigEndian.AppendUint16(nil, stage)
	prefixes := [][]byte{{kindValue}, {kindList}, {kindExpiring}, slices.Clone(keyBucket), {kindTimer, byte(plan.ProcessingTime)}, {kindTimer, byte(plan.EventTime)}}
	for i := range prefixes {
		prefixes[i] = append(prefixes[i], id...)
	}
	return prefixes
}

// holds reports whether a stage has any values, lists or timers.
func (s *state) holds(stage uint16) (bool, error) {
	for _, prefix := range stagePrefixes(stage) {
		it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
		if err != nil {
			return false, err
		}
		some := it.First()
		if err := errors.Join(it.Error(), it.Close()); err != nil || some {
			return some, err
		}
	}
	return false, nil
}
