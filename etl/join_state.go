package etl

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"millrace/plan"
)

// joinState is the keyed stage that all joins with one entity type and the same entity paths share.
//
// A key's value is the versions of its entity. Its list is the records that may still be told of another version:
//
//	            no version                     version chosen
//	record ───────────────────▶ waiting ───────────────────────▶ subscribed ──▶ forgotten
//	   │                           │   ▲                             ▲  │   until + CorrectFor
//	   │                           │   └───── the version was deleted ──┘
//	   │                           │ until + WaitFor: as Else says    │
//	   │                           └─────────────────────────────────▶│  a better version: the record is
//	   └──────────────────────────────────────────────────────────────┘  emitted again, one revision higher
//
// A record that an earlier step may yet correct leaves a trace when it is forgotten: where it went from here, so that it can be
// fetched back from there.
//
// Which version is chosen depends on the versions and the record's time alone (versions.at), so any order of arrival ends in the
// same last emission, as long as the records are still listed.
type joinState struct {
	p           *program
	kind        string // of state: see Join.stateName
	name        string
	key         string // what the state is kept by, in canonical words
	entityType  string
	entitySlots [][]int // by condition: the slots of its alternatives in the entity
	stage       int
}

func newJoinState(p *program, j Join, kind string) (*joinState, error) {
	s := &joinState{p: p, kind: kind, name: kind, key: j.key(), entityType: j.entityType}
	for _, c := range j.conditions {
		alts, err := c.entity.parse()
		if err != nil {
			return nil, err
		}
		var slots []int
		for _, a := range alts {
			slots = append(slots, p.layout.index[a.path])
		}
		s.entitySlots = append(s.entitySlots, slots)
	}
	return s, nil
}

func (s *joinState) doc() string {
	var fields []string
	for _, t := range s.p.tables {
		for i, stage := range t.joinStages {
			if stage == s.stage {
				fields = append(fields, t.name+"."+t.joins[i].field)
			}
		}
	}
	return fmt.Sprintf("joins %s to %s", s.entityType, strings.Join(fields, ", "))
}

func (s *joinState) keyed(clock plan.Clock, keys []*plan.Key, out *plan.Output) {
	scr := scratches.Get().(*scratch)
	defer scr.release()
	scr.now = clock.Processing
	for _, k := range keys {
		c := joinCall{joinState: s, now: clock.Processing, k: k, out: outputEmitter{out}, s: scr}
		c.run()
	}
}

// joinCall handles one key of one batch.
type joinCall struct {
	*joinState
	now      int64
	k        *plan.Key
	out      outputEmitter
	s        *scratch
	versions versions
	list     []*pending              // when loaded; some may be gone
	byID     map[[16]byte][]*pending // of list, by flow.id; nil until somebody looks
	loaded   bool
	dirty    bool // the list must be written anew
}

func (c *joinCall) run() {
	var err error
	if c.versions, err = parseVersions(c.k.Value, c.s); err != nil {
		panic(fmt.Sprintf("state of %s: %v", c.name, err))
	}
	c.load()
	changed := false
	for i := range c.k.Inputs {
		if c.k.Inputs[i].Tag != tagEntity {
			continue
		}
		var added bool
		c.versions, added = c.versions.add(*versionOf(&c.k.Inputs[i]), c.now)
		changed = changed || added
	}
	if changed {
		for _, it := range c.list {
			c.choose(it)
		}
	}
	for i := range c.k.Inputs {
		if in := &c.k.Inputs[i]; in.Tag != tagEntity {
			c.record(in.Tag, flowOf(in))
		}
	}
	if len(c.k.Timers) > 0 {
		c.expire()
	}
	if changed {
		c.trim()
		c.k.SetValue = c.versions.append(nil)
	}
	c.store()
}

// load reads the list when the batch has it: one of the inputs is of a kind that needs it, or a timer fired.
func (c *joinCall) load() {
	c.loaded = len(c.k.Timers) > 0
	for _, in := range c.k.Inputs {
		c.loaded = c.loaded || in.Tag != tagRecord
	}
	for _, b := range c.k.List {
		it, err := parsePending(b)
		if err != nil {
			panic(fmt.Sprintf("state of %s: %v", c.name, err))
		}
		if t := c.p.byName[it.flow.table]; t != nil && t.expires() && !it.waiting && max(it.until, it.keep) <= c.now {
			continue // it leaves the list by itself
		}
		c.list = append(c.list, it)
	}
}

func (c *joinCall) unpack(it *pending) {
	if err := it.unpack(); err != nil {
		panic(fmt.Sprintf("state of %s: %v", c.name, err))
	}
}

func (c *joinCall) store() {
	if c.loaded && c.dirty {
		c.k.ReplaceList = true
		for _, it := range c.list {
			if !it.gone {
				c.append(it)
			}
		}
	}
}

// join returns the table and the join that a record is here for. Nil: this version of the app has no such table or join any more,
// and the record is of no use.
func (c *joinCall) join(f *flow) (*transformer, *Join) {
	t := c.p.byName[f.table]
	if t == nil {
		return nil, nil
	}
	step := t.step(f)
	if step < 0 || step >= len(t.joins) || t.joinStages[step] != c.stage {
		return nil, nil
	}
	return t, &t.joins[step]
}

// record handles a record that comes, comes again, or goes.
func (c *joinCall) record(tag uint8, f *flow) {
	if tag == tagRetract {
		if t := c.p.byName[f.table]; t != nil {
			c.p.leave(t, f, c.forget(t, f), place{}, c.out)
		}
		return
	}
	t, j := c.join(f)
	if t == nil {
		return
	}
	var before place
	if tag == tagAgain {
		before = c.forget(t, f)
	}
	it := c.s.pending.one()
	it.flow = f
	if v := c.versions.at(f.eventTime); v != nil {
		c.emit(t, j, it, v, before)
	} else {
		c.wait(t, j, it, before)
	}
	c.add(it)
}

// forget takes older revisions of a record out of the list, and returns where the last of them was left.
func (c *joinCall) forget(t *transformer, f *flow) (before place) {
	if c.byID == nil { // all records of a popular entity may come again at once
		c.byID = make(map[[16]byte][]*pending, len(c.list))
		for _, it := range c.list {
			c.byID[it.flow.id] = append(c.byID[it.flow.id], it)
		}
	}
	for _, old := range c.byID[f.id] {
		if !old.gone && old.flow.table == f.table && old.flow.olderThan(f) {
			before = old.place
			c.uncount(t, old)
			c.remove(old)
		}
	}
	return before
}

// add lists a new record, if it may still change.
func (c *joinCall) add(it *pending) {
	if c.over(it) {
		return
	}
	if c.loaded {
		c.list = append(c.list, it)
		if c.byID != nil {
			c.byID[it.flow.id] = append(c.byID[it.flow.id], it)
		}
		c.dirty = true
		return
	}
	c.append(it)
}

// append adds a record to the key's list.
func (c *joinCall) append(it *pending) {
	if t := c.p.byName[it.flow.table]; !it.waiting && t != nil && t.expires() {
		c.k.AppendUntil = append(c.k.AppendUntil, plan.Expiring{Item: it.encode(c.s), Until: max(it.until, it.keep)})
		return
	}
	c.k.Append = append(c.k.Append, it.encode(c.s))
}

// uncount takes a record that leaves the list out of the counts that say where records are.
func (c *joinCall) uncount(t *transformer, it *pending) {
	if it.waiting {
		c.out.count(t.counters.waiting, -1)
	}
	if it.dropFlag {
		c.out.count(t.counters.dropped, -1)
	}
}

// wait lets a record wait for its entity. What an earlier revision became is taken back: had the entity never been there, the
// record would wait as well.
func (c *joinCall) wait(t *transformer, j *Join, it *pending, before place) {
	it.waiting = true
	it.until = c.deadline(j.waitFor)
	c.out.count(t.counters.waiting, 1)
	if it.emitted > 0 || !it.flow.first() {
		// The withdrawal takes a revision of its own, so that what is emitted later is newer.
		w := it.flow.with(c.s, doc{j.field, nothing}, it.emitted, "")
		it.emitted++
		c.p.withdraw(t, w, c.out)
		c.p.leave(t, w, before, place{}, c.out)
	}
	it.place = place{}
	if it.flow.light { // it may come to base when it has waited in vain, and be corrected after that
		c.p.extendBase(it.flow, tagHold, it.until+t.correctFor.Microseconds()+1, c.out)
	}
}

// emit hands a record on with the version, or without when v is nil.
func (c *joinCall) emit(t *transformer, j *Join, it *pending, v *version, before place) {
	d, source := doc{j.field, nothing}, ""
	it.joined = v != nil
	if v != nil {
		it.chosen = v.fingerprint
		d.content, source = v.content, v.source
	}
	next := it.flow.with(c.s, d, it.emitted, source)
	next.kept = c.keepBase(t, j, it.flow)
	tag := tagRecord
	if !next.first() {
		tag = tagAgain
	}
	it.emitted++
	it.place = c.p.forward(t, next, c.s, c.out, tag)
	c.p.leave(t, next, before, it.place, c.out)
	c.subscribe(t, j, it)
}

// subscribe ends the waiting of a record that was handed on, or dropped.
func (c *joinCall) subscribe(t *transformer, j *Join, it *pending) {
	it.waiting, it.trace = false, j.correctFor == 0
	it.until, it.keep = c.now, c.now
	deadline := c.deadline
	if t.expires() {
		deadline = func(d time.Duration) int64 { return c.now + d.Microseconds() }
	}
	if j.correctFor > 0 {
		it.until = deadline(j.correctFor)
		if t.keepsBase() {
			it.flow = t.lighten(it.flow, c.s)
			it.head, it.packed = nil, nil
		}
	}
	if it.place.key == nil && it.place.drop == 0 && !it.dropFlag {
		return // there is nothing that a trace could tell
	}
	switch d, ever := t.correctable(it.flow); {
	case ever:
		it.keep = math.MaxInt64
	case d > 0:
		it.keep = deadline(d)
	}
}

// over reports whether nothing more can become of a listed record.
func (c *joinCall) over(it *pending) bool { return it.trace && it.keep <= c.now }

// choose looks whether another version is now the right one for a listed record.
func (c *joinCall) choose(it *pending) {
	t, j := c.join(it.flow)
	if t == nil {
		c.remove(it)
		return
	}
	if it.trace || t.expires() && !it.waiting && it.until <= c.now {
		return
	}
	v := c.versions.at(it.flow.eventTime)
	switch {
	case v == nil && it.waiting, v == nil && !it.joined:
		return
	case v != nil && !it.waiting && it.joined && it.chosen == v.fingerprint:
		return
	}
	c.unpack(it)
	if !it.waiting && !t.comparesAlike(it.flow) {
		return // another version of the app joined it by something else; the row stays as that version made it
	}
	c.dirty = true
	c.uncount(t, it)
	it.dropFlag = false
	if v == nil {
		c.wait(t, j, it, it.place)
		return
	}
	c.emit(t, j, it, v, it.place)
	if c.over(it) {
		c.remove(it)
	}
}

// expire ends the waiting and the subscriptions whose time has come.
func (c *joinCall) expire() {
	for _, it := range c.list {
		if it.gone {
			continue
		}
		t, j := c.join(it.flow)
		switch {
		case t == nil:
			c.remove(it)
			continue
		case it.until > c.now, t.expires() && !it.waiting:
			continue
		case it.waiting:
			c.dirty = true
			c.unpack(it)
			c.out.count(t.counters.waiting, -1)
			c.giveUp(t, j, it)
		case !it.trace:
			c.dirty = true
			it.trace = true
		}
		if c.over(it) {
			c.remove(it)
		}
	}
}

// giveUp does with a record that waited in vain as its policy says.
func (c *joinCall) giveUp(t *transformer, j *Join, it *pending) {
	it.joined = false
	switch j.otherwise {
	case EmitNulls:
		c.emit(t, j, it, nil, it.place)
		return
	case DeadLetter:
		next := it.flow.with(c.s, doc{j.field, nothing}, it.emitted, "")
		for t.step(next) < len(t.joins) {
			next = next.with(c.s, doc{t.joins[t.step(next)].field, nothing}, 0, "")
		}
		it.emitted++
		reason := fmt.Sprintf("join %s: no %s came within %s", j.field, j.entityType, j.waitFor)
		c.keepBase(t, j, it.flow)
		c.out.add(c.p.mapStageOf(next), failed(next, failure{"join", []string{reason}}))
	case Drop:
		if it.flow.light { // it stays listed without passing base
			c.p.extendBase(it.flow, tagExtend, c.now+t.correctFor.Microseconds(), c.out)
		}
		c.keepBase(t, j, it.flow)
		it.dropFlag = true
		c.out.count(t.counters.dropped, 1)
	}
	c.subscribe(t, j, it)
}

// remove takes a record out of the list, which stays as it is until it is stored: whoever goes through it may remove.
func (c *joinCall) remove(it *pending) {
	it.gone = true
	c.dirty = true
}

// deadline returns the instant d from now and sets a timer for it. Instants are rounded up by at most a sixteenth of d, so that
// the records of a key share few timers.
func (c *joinCall) deadline(d time.Duration) int64 {
	grain := max(d.Microseconds()/16, 1)
	at := c.now + d.Microseconds()
	at = (at + grain - 1) / grain * grain
	timer := plan.Timer{Domain: plan.ProcessingTime, At: at}
	if !slices.Contains(c.k.SetTimers, timer) {
		c.k.SetTimers = append(c.k.SetTimers, timer)
	}
	return at
}
