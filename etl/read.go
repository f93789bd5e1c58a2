package etl

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"millrace/caliper"
	"millrace/plan"
	"millrace/record"
)

// scratch is what one call of Read needs and reuses.
type scratch struct {
	values   []record.Value
	inner    []record.Value // of a document inside the one that values are of
	reader   Reader
	wanted   []*transformer // the tables of an event
	now      int64          // processing time; not set in Read
	messages messages

	key                []byte // a key before it is hashed
	row                []byte // a row's value
	head, body, packed []byte // of a pending record
	versions, contents []version

	lasting
}

// lasting is what lives until the epoch is committed.
type lasting struct {
	arena    arena
	arrivals slab[arrival]
	sends    slab[send]
	deltas   slab[delta]
	flows    slab[flow]
	docs     slab[doc]
	revs     slab[uint32]
	sources  slab[string]
	content  slab[content]
	pending  slab[pending]
	compared slab[record.Value]
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// release hands s on, without what lasts: the rest of a chunk would hold all that the chunk gave out, and through it the records
// and the state of epochs that are over. Small epochs share a chunk by the dozen.
func (s *scratch) release() {
	s.lasting = lasting{}
	scratches.Put(s)
}

// read is the plan's Read: one scan of each item finds every path of the app, then the item goes to dedup with the messages
// that it means for the stages behind it.
func (p *program) read(items []record.Item, out *plan.Output) {
	s := scratches.Get().(*scratch)
	defer s.release()
	for i := range items {
		p.readItem(&items[i], s, out)
	}
}

func (p *program) readItem(it *record.Item, s *scratch, out *plan.Output) {
	out.Count(p.counts.read, 1)
	switch {
	case it.Kind == record.Reject:
		out.Count(p.counts.rejects, 1)
		return
	case it.Replay != nil:
		if !p.replays(it, s, out) {
			return
		}
	}
	s.values = slices.Grow(s.values[:0], len(p.layout.paths))[:len(p.layout.paths)]
	slots, fingerprint, err := p.layout.scan(it.Bytes, s.values, s.arena.room(128))
	if err != nil {
		p.unreadable(it, err.Error(), out)
		return
	}
	in := input{it: it, values: s.values, slots: s.arena.keep(slots), fingerprint: fingerprint}
	in.source = s.arena.string(appendSource(s.arena.room(64+len(it.ID)+len(it.Position.Topic)), it))
	in.typ = termOf(s.values[p.head.typ])
	if in.typ == "" {
		p.unreadable(it, "type: is missing or not a string", out)
		return
	}
	in.id, _ = textOf(s.values[p.head.id])
	switch it.Kind {
	case record.Event:
		p.readEvent(&in, s, out)
	case record.Entity:
		p.readEntity(&in, s, out)
	default:
		p.unreadable(it, fmt.Sprintf("item of unknown kind %d", it.Kind), out)
	}
}

// input is an item as Read sees it.
type input struct {
	it          *record.Item
	values      []record.Value
	slots       []byte
	fingerprint [16]byte
	source      string
	typ         string
	id          string
	time        int64
	whole       *content // see content
}

func (p *program) readEvent(in *input, s *scratch, out *plan.Output) {
	if err := in.readTime(in.values[p.head.eventTime]); err != nil {
		p.unreadable(in.it, "eventTime: "+err.Error(), out)
		return
	}
	action := termOf(in.values[p.head.action])

	wanted := s.wanted[:0]
	for _, tr := range p.tables {
		if tr.source.matches(record.Event, in.typ, action) {
			wanted = append(wanted, tr)
		}
	}
	s.wanted = wanted
	entities, err := p.entitiesIn(in, s)
	if err != nil {
		p.unreadable(in.it, "extract: "+err.Error(), out)
		return
	}
	if len(wanted) == 0 && len(entities) == 0 {
		out.Count(p.counts.filtered, 1)
		return
	}
	fingerprint := in.fingerprint
	out.Count(p.counts.events, 1)
	m := s.messages.reset()
	for _, tr := range wanted {
		p.flatMap(tr, in, fingerprint, s, m)
	}
	p.emitEntities(in, entities, action, s, m)
	p.sendToDedup('e', in, identityOf(in.id, fingerprint), fingerprint, s, out)
}

// readTime sets when the event was: its eventTime, or, of an event that tells none, when it was sent, else received.
func (in *input) readTime(eventTime record.Value) error {
	switch {
	case eventTime.IsSet():
		t, err := caliper.ParseTime(eventTime)
		in.time = t.UnixMicro()
		return err
	case !in.it.SendTime.IsZero():
		in.time = in.it.SendTime.UnixMicro()
	default:
		in.time = in.it.ReceivedAt.UnixMicro()
	}
	return nil
}

func (p *program) readEntity(in *input, s *scratch, out *plan.Output) {
	in.time = p.versionTime(in.values[p.head.dateModified], in.it)
	fingerprint := in.fingerprint
	m := s.messages.reset()
	v := &version{
		validFrom: in.time, fingerprint: fingerprint, source: in.source,
		content: &content{bytes: in.it.Bytes, layout: p.layout.hash, slots: in.slots},
	}
	p.sendVersion(in, in.values, v, in.typ, in.id, s, m)
	if len(m.sends) == 0 {
		out.Count(p.counts.filtered, 1)
		return
	}
	out.Count(p.counts.entities, 1)
	// Two descriptions of one content are two versions when their times differ.
	identity := identityOf(in.id, fingerprint) + "@" + strconv.FormatInt(in.time, 10)
	p.sendToDedup('d', in, identity, fingerprint, s, out)
}

// sendVersion emits a version to the tables of its type and to every join that it has a key for.
func (p *program) sendVersion(in *input, values []record.Value, v *version, typ, id string, s *scratch, m *messages) {
	if id != "" && caliper.Anonymous(id, typ) {
		return // nothing says that two of them are the same thing
	}
	for _, l := range p.latest {
		if !l.t.source.matches(record.Entity, typ, "") {
			continue
		}
		p.sendLatest(l, in, v, id, tagEntity, s, m)
	}
	for _, j := range p.joins {
		if typ != j.entityType && !caliper.IsA(typ, j.entityType) {
			continue
		}
		for _, key := range j.entityKeys(values, in.it.Account, in.it.Env, s) {
			m.add(j.stage, plan.Element{Key: key, Time: v.validFrom, Tag: tagEntity, Message: v})
		}
	}
}

// sendLatest emits a version to the table of its entities.
func (p *program) sendLatest(l *latestState, in *input, v *version, id string, tag uint8, s *scratch, m *messages) {
	identity := identityOf(id, v.fingerprint)
	f := &flow{
		table: l.t.name, id: rowID(l.t.name, in.it.Account, in.it.Env, identity, [16]byte{}, 0),
		account: in.it.Account, env: in.it.Env, eventTime: v.validFrom,
		docs:    []doc{{"entity", v.content}},
		sources: []string{v.source},
	}
	m.add(l.stage, plan.Element{
		Key:  s.hash(appendString(appendTenant(s.key[:0], in.it.Account, in.it.Env), identity)),
		Time: v.validFrom, Tag: tag, Message: &described{v.deleted, v.fingerprint, f},
	})
}

// flatMap runs the table's FlatMap and sends what it emits to the first join. A FlatMap that fails or panics makes one dead letter
// of the whole event.
func (p *program) flatMap(t *transformer, in *input, fingerprint [16]byte, s *scratch, m *messages) {
	base := p.record(t, in, fingerprint, s)
	if t.flatMap == nil {
		p.forward(t, base, s, m, tagRecord)
		m.count(t.counters.in, 1)
		return
	}
	emitted, err := p.unwind(t, in, base, fingerprint, s)
	if err != nil {
		m.add(p.mapStage, failed(base, failure{"flat_map", []string{err.Error()}}))
		m.count(t.counters.in, 1)
		return
	}
	for _, f := range emitted {
		for _, d := range f.docs {
			p.scanAttached(d.content, s)
		}
		p.forward(t, f, s, m, tagRecord)
	}
	m.count(t.counters.in, int64(len(emitted)))
}

// content is the item as a document. All tables share it.
func (in *input) content(l *layout, s *scratch) *content {
	if in.whole == nil {
		in.whole = s.content.one()
		*in.whole = content{bytes: in.it.Bytes, layout: l.hash, slots: in.slots}
	}
	return in.whole
}

// scanAttached finds the slots of a value that FlatMap attached, once for all stages.
func (p *program) scanAttached(c *content, s *scratch) {
	if p.layout.made(c) || c.bytes == nil {
		return
	}
	s.inner = slices.Grow(s.inner[:0], len(p.layout.paths))[:len(p.layout.paths)]
	slots, _, err := p.layout.scan(c.bytes, s.inner, s.arena.room(128))
	if err != nil {
		return // whoever reads it will say so
	}
	c.slots, c.layout = s.arena.keep(slots), p.layout.hash
}

// record is the record that an event is for a table without FlatMap.
func (p *program) record(t *transformer, in *input, fingerprint [16]byte, s *scratch) *flow {
	f := s.flows.one()
	*f = flow{
		table: t.name, id: rowID(t.name, in.it.Account, in.it.Env, identityOf(in.id, fingerprint), fingerprint, 0),
		account: in.it.Account, env: in.it.Env, eventTime: in.time,
	}
	f.docs = plus(&s.docs, nil, doc{"event", in.content(p.layout, s)})
	f.sources = plus(&s.sources, nil, in.source)
	return f
}

// unwind runs the table's FlatMap on an event's record.
func (p *program) unwind(t *transformer, in *input, base *flow, fingerprint [16]byte, s *scratch) (emitted []*flow, err error) {
	identity := identityOf(in.id, fingerprint)
	err = guard(func() error {
		s.reader.t = t
		return t.flatMap(Record{&s.reader, base}, func(rec Record) {
			f := *rec.f
			f.id = rowID(t.name, in.it.Account, in.it.Env, identity, fingerprint, len(emitted))
			emitted = append(emitted, &f)
		})
	})
	return emitted, err
}

// entitiesIn finds the entities that an event carries: at the paths that the app harvests, and those that it extracts.
func (p *program) entitiesIn(in *input, s *scratch) (found []record.Value, err error) {
	add := func(v record.Value) {
		if v.Kind == record.Object {
			found = append(found, v)
		}
	}
	for _, slot := range p.harvest {
		add(in.values[slot])
	}
	if p.app.Extract == nil {
		return found, nil
	}
	err = guard(func() error {
		s.reader.t = p.extractor
		event := flow{docs: []doc{{"event", in.content(p.layout, s)}}}
		return p.app.Extract(Record{&s.reader, &event}, add)
	})
	return found, err
}

// emitEntities emits the entities that an event carries.
func (p *program) emitEntities(in *input, entities []record.Value, action string, s *scratch, m *messages) {
	for _, v := range entities {
		values := make([]record.Value, len(p.layout.paths))
		slots, fingerprint, err := p.layout.scan(v.Raw, values, nil)
		if err != nil {
			panic(err) // part of a document that was valid
		}
		typ := termOf(values[p.head.typ])
		if typ == "" {
			continue
		}
		id, _ := values[p.head.id].Text()
		ver := &version{
			validFrom: in.time, fingerprint: fingerprint, deleted: action == "Deleted", source: in.source,
			content: &content{bytes: v.Raw, layout: p.layout.hash, slots: slots},
		}
		if t, err := caliper.ParseTime(values[p.head.dateModified]); err == nil && !ver.deleted {
			ver.validFrom = t.UnixMicro()
		}
		p.sendVersion(in, values, ver, typ, id, s, m)
		m.count(p.counts.harvested, 1)
	}
}

// versionTime is when a described entity's version begins: its dateModified, else the time of the description. A dateModified
// that is no time counts as none: the entity is still worth having.
func (p *program) versionTime(dateModified record.Value, it *record.Item) int64 {
	var head caliper.Head
	if t, err := caliper.ParseTime(dateModified); err == nil {
		head.DateModified = t
	}
	sent := it.SendTime
	if sent.IsZero() {
		sent = it.ReceivedAt
	}
	return caliper.VersionTime(head, sent, time.Time{}).UnixMicro()
}

func (p *program) sendToDedup(kind byte, in *input, identity string, fingerprint [16]byte, s *scratch, out *plan.Output) {
	s.key = appendString(appendTenant(append(s.key[:0], kind), in.it.Account, in.it.Env), identity)
	a := s.arrivals.one()
	*a = arrival{fingerprint: fingerprint, counts: s.deltas.list(s.messages.counts), sends: s.sends.list(s.messages.sends)}
	out.Send(p.dedupStage, plan.Element{Key: s.hash(s.key), Time: in.time, Tag: tagRecord, Message: a})
}

// unreadable makes a dead letter of an item that no table can be asked about.
func (p *program) unreadable(it *record.Item, reason string, out *plan.Output) {
	out.Count(p.counts.unreadable, 1)
	rev := uint64(0)
	if it.Replay != nil {
		rev = it.Replay.Rev
	}
	out.Row(p.deadLetter(plan.Row{
		ID: idString(rowID("", it.Account, it.Env, string(it.Bytes), [16]byte{}, 0)), Rev: rev,
		EventTime: it.ReceivedAt.UnixMicro(), Account: it.Account, Env: it.Env, Sources: []string{string(appendSource(nil, it))},
	}, "", it.Kind.String(), it.Bytes, failure{"read", []string{reason}}))
}

// appendSource says where an item came from: the proof of what is made from it.
func appendSource(b []byte, it *record.Item) []byte {
	b = append(append(b, it.Kind.String()...), ' ')
	b = append(append(b, it.ID...), ' ')
	b = append(append(b, it.Position.Topic...), '/')
	b = append(strconv.AppendInt(b, int64(it.Position.Partition), 10), '/')
	return strconv.AppendInt(b, it.Position.Offset, 10)
}

func identityOf(id string, fingerprint [16]byte) string {
	if id != "" {
		return id
	}
	return "fp:" + idString(fingerprint)
}

func termOf(v record.Value) string {
	s, _ := textOf(v)
	return caliper.Term(s)
}

// guard turns a panic of the app's code into an error: one record must not stop the job.
func guard(fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return fn()
}

// messages are elements and counts that wait for dedup's word.
type messages struct {
	sends  []send
	counts []delta
}

// reset empties m for the next item.
func (m *messages) reset() *messages {
	*m = messages{sends: m.sends[:0], counts: m.counts[:0]}
	return m
}

func (m *messages) add(stage int, e plan.Element) { m.sends = append(m.sends, send{stage, e}) }

func (m *messages) count(counter int, n int64) {
	if n != 0 {
		m.counts = append(m.counts, delta{counter, n})
	}
}
