package etl

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"millrace/caliper"
	"millrace/plan"
	"millrace/record"
)

// scratch is what one call of Read needs and reuses.
type scratch struct {
	values   []record.Value
	reader   Reader
	parts    []part
	wanted   []*transformer // the tables of an event
	messages messages
	packed   []byte // a pending record's body
	row      []byte // a row's value
	arena    arena
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// read is the plan's Read: one scan of each item finds every path of the app, then the item goes to dedup with the messages
// that it means for the stages behind it.
func (p *program) read(items []record.Item, out *plan.Output) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
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
	slots, err := p.layout.scan(it.Bytes, s.values, s.arena.room(128))
	if err != nil {
		p.unreadable(it, err.Error(), out)
		return
	}
	in := input{it: it, values: s.values, slots: s.arena.keep(slots), source: source(it)}
	in.typ = termOf(s.values[p.head.typ])
	if in.typ == "" {
		p.unreadable(it, "type: is missing or not a string", out)
		return
	}
	in.id, _ = s.values[p.head.id].Text()
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
	it     *record.Item
	values []record.Value
	slots  []byte
	source string
	typ    string
	id     string
	time   int64
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
	fingerprint, err := record.Fingerprint(in.it.Bytes)
	if err != nil {
		p.unreadable(in.it, err.Error(), out)
		return
	}
	out.Count(p.counts.events, 1)
	m := s.messages.reset()
	for _, tr := range wanted {
		p.flatMap(tr, in, fingerprint, s, m)
	}
	p.emitEntities(in, entities, action, m)
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
	fingerprint, err := record.Fingerprint(in.it.Bytes)
	if err != nil {
		p.unreadable(in.it, err.Error(), out)
		return
	}
	m := s.messages.reset()
	v := version{
		validFrom: in.time, fingerprint: fingerprint, source: in.source,
		bytes: in.it.Bytes, layout: p.layout.hash, slots: in.slots,
	}
	p.sendVersion(in, in.values, v, in.typ, in.id, m)
	if m.n == 0 {
		out.Count(p.counts.filtered, 1)
		return
	}
	out.Count(p.counts.entities, 1)
	// Two descriptions of one content are two versions when their times differ.
	identity := identityOf(in.id, fingerprint) + "@" + strconv.FormatInt(in.time, 10)
	p.sendToDedup('d', in, identity, fingerprint, s, out)
}

// sendVersion emits a version to the tables of its type and to every join that it has a key for.
func (p *program) sendVersion(in *input, values []record.Value, v version, typ, id string, m *messages) {
	if id != "" && caliper.Anonymous(id, typ) {
		return // nothing says that two of them are the same thing
	}
	for _, l := range p.latest {
		if !l.t.source.matches(record.Entity, typ, "") {
			continue
		}
		p.sendLatest(l, in, v, id, tagEntity, m)
	}
	for _, j := range p.joins {
		if typ != j.entityType && !caliper.IsA(typ, j.entityType) {
			continue
		}
		for _, key := range j.entityKeys(values, in.it.Account, in.it.Env) {
			m.add(j.stage, plan.Element{Key: key, Time: v.validFrom, Tag: tagEntity, Payload: v.append(nil)})
		}
	}
}

// sendLatest emits a version to the table of its entities.
func (p *program) sendLatest(l *latestState, in *input, v version, id string, tag uint8, m *messages) {
	identity := identityOf(id, v.fingerprint)
	f := &flow{
		table: l.t.name, id: rowID(l.t.name, in.it.Account, in.it.Env, identity, [16]byte{}, 0),
		account: in.it.Account, env: in.it.Env, eventTime: v.validFrom,
		docs:    []doc{{name: "entity", bytes: v.bytes, layout: v.layout, slots: v.slots}},
		sources: []string{v.source},
	}
	payload := appendBool(nil, v.deleted)
	payload = append(payload, v.fingerprint[:]...)
	m.add(l.stage, plan.Element{
		Key: joinKey(in.it.Account, in.it.Env, []string{identity}), Time: v.validFrom, Tag: tag, Payload: f.append(payload),
	})
}

// flatMap runs the table's FlatMap and sends what it emits to the first join. A FlatMap that fails or panics makes one dead letter
// of the whole event.
func (p *program) flatMap(t *transformer, in *input, fingerprint [16]byte, s *scratch, m *messages) {
	base := p.record(t, in, fingerprint)
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
		p.forward(t, f, s, m, tagRecord)
	}
	m.count(t.counters.in, int64(len(emitted)))
}

// record is the record that an event is for a table without FlatMap.
func (p *program) record(t *transformer, in *input, fingerprint [16]byte) *flow {
	return &flow{
		table: t.name, id: rowID(t.name, in.it.Account, in.it.Env, identityOf(in.id, fingerprint), fingerprint, 0),
		account: in.it.Account, env: in.it.Env, eventTime: in.time,
		docs:    []doc{{name: "event", bytes: in.it.Bytes, layout: p.layout.hash, slots: in.slots}},
		sources: []string{in.source},
	}
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
		event := flow{docs: []doc{{name: "event", bytes: in.it.Bytes, layout: p.layout.hash, slots: in.slots}}}
		return p.app.Extract(Record{&s.reader, &event}, add)
	})
	return found, err
}

// emitEntities emits the entities that an event carries.
func (p *program) emitEntities(in *input, entities []record.Value, action string, m *messages) {
	for _, v := range entities {
		values := make([]record.Value, len(p.layout.paths))
		slots, err := p.layout.scan(v.Raw, values, nil)
		if err != nil {
			panic(err) // part of a document that was valid
		}
		typ := termOf(values[p.head.typ])
		if typ == "" {
			continue
		}
		fingerprint, err := record.Fingerprint(v.Raw)
		if err != nil {
			panic(err)
		}
		id, _ := values[p.head.id].Text()
		ver := version{
			validFrom: in.time, fingerprint: fingerprint, deleted: action == "Deleted", source: in.source,
			bytes: v.Raw, layout: p.layout.hash, slots: slots,
		}
		if t, err := caliper.ParseTime(values[p.head.dateModified]); err == nil && !ver.deleted {
			ver.validFrom = t.UnixMicro()
		}
		p.sendVersion(in, values, ver, typ, id, m)
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
	key := s.arena.room(32 + len(in.it.Account) + len(in.it.Env) + len(identity))
	key = s.arena.keep(appendString(appendString(appendString(append(key, kind), in.it.Account), in.it.Env), identity))
	m := &s.messages
	payload := s.arena.room(48 + len(m.counts) + len(m.sends))
	payload = s.arena.keep(m.append(append(payload, fingerprint[:]...)))
	out.Send(p.dedupStage, plan.Element{Key: key, Time: in.time, Tag: tagRecord, Payload: payload})
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
		EventTime: it.ReceivedAt.UnixMicro(), Account: it.Account, Env: it.Env, Sources: []string{source(it)},
	}, "", it.Kind.String(), it.Bytes, failure{"read", []string{reason}}))
}

// source says where an item came from: the proof of what is made from it.
func source(it *record.Item) string {
	b := make([]byte, 0, 48+len(it.ID)+len(it.Position.Topic))
	b = append(append(b, it.Kind.String()...), ' ')
	b = append(append(b, it.ID...), ' ')
	b = append(append(b, it.Position.Topic...), '/')
	b = append(strconv.AppendInt(b, int64(it.Position.Partition), 10), '/')
	b = strconv.AppendInt(b, it.Position.Offset, 10)
	return unsafe.String(unsafe.SliceData(b), len(b))
}

func identityOf(id string, fingerprint [16]byte) string {
	if id != "" {
		return id
	}
	return "fp:" + idString(fingerprint)
}

func termOf(v record.Value) string {
	s, _ := v.Text()
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
	n      int
	sends  []byte
	counts []byte
	nCount int
}

// reset empties m for the next item.
func (m *messages) reset() *messages {
	*m = messages{sends: m.sends[:0], counts: m.counts[:0]}
	return m
}

func (m *messages) add(stage int, e plan.Element) {
	at := m.begin(stage, e)
	m.sends = append(m.sends, e.Payload...)
	m.end(at)
}

func (m *messages) addFlow(stage int, e plan.Element, f *flow) {
	at := m.begin(stage, e)
	m.sends = f.append(m.sends)
	m.end(at)
}

// begin appends an element up to its payload, whose length end fills in.
func (m *messages) begin(stage int, e plan.Element) (at int) {
	m.n++
	m.sends = binary.AppendUvarint(m.sends, uint64(stage))
	m.sends = append(m.sends, e.Tag)
	m.sends = binary.AppendVarint(m.sends, e.Time)
	m.sends = appendBytes(m.sends, e.Key)
	m.sends = append(m.sends, 0, 0, 0, 0)
	return len(m.sends)
}

func (m *messages) end(at int) {
	binary.LittleEndian.PutUint32(m.sends[at-4:], uint32(len(m.sends)-at)) //nolint:gosec // of one item
}

func (m *messages) count(counter int, n int64) {
	if n == 0 {
		return
	}
	m.nCount++
	m.counts = binary.AppendUvarint(m.counts, uint64(counter))
	m.counts = binary.AppendVarint(m.counts, n)
}

func (m *messages) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(m.nCount))
	dst = append(dst, m.counts...)
	dst = binary.AppendUvarint(dst, uint64(m.n))
	return append(dst, m.sends...)
}

// deliver sends what append wrote.
func (r *reader) deliver(out *plan.Output) {
	for range r.count() {
		counter := int(r.uvarint())
		out.Count(counter, r.varint())
	}
	for range r.count() {
		stage := int(r.uvarint())
		e := plan.Element{Tag: r.byte(), Time: r.varint(), Key: r.bytes()}
		e.Payload = r.take(uint64(r.uint32()))
		out.Send(stage, e)
	}
}
