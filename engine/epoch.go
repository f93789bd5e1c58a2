package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"millrace/plan"
)

// epoch makes one epoch of what the source brought, the timers that are due, and a sink's advance with the rows that it
// refused; each may be missing. When nothing changes, nothing is committed.
func (e *Engine) epoch(in *input, a *advance) error {
	began := time.Now()
	next := e.rec.clone()
	next.Epoch++
	next.Processing = max(e.rec.Processing, e.c.Now().UnixMicro())
	var read []*plan.Output
	if in != nil {
		read = in.read
		e.take(in, &next)
	}
	next.Watermark = watermark(e.rec.Watermark, next.Processing, next.Newest, e.last, next.Offsets, e.ends(), e.c.Disorder, e.c.IdleAfter)
	clock := plan.Clock{Processing: next.Processing, Watermark: next.Watermark}

	// Timers that are still to fire may find what expires after their instants.
	gone := e.s.buckets.expire(min(clock.Processing, e.timers.next(plan.ProcessingTime)))
	dropped, items := e.dropExpiring()
	gone = append(gone, dropped...)
	next.Dropped += items

	e.leftover = false
	var fired [][]firedTimer
	if e.timers.due(clock) {
		var n int
		var err error
		if fired, n, err = e.timers.fire(clock); err != nil {
			return err
		}
		next.Fired += int64(n)
		e.leftover = n >= maxFired
	}
	if in == nil && a == nil && next.Fired == e.rec.Fired && len(gone) == 0 {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.live.nextTimer = e.timers.next(plan.ProcessingTime) // the index may know better now
		return nil
	}

	var extra []plan.Row
	if a != nil {
		extra = a.deadLetters
		next.Rejected[a.sink] += a.rejected
	}
	res, err := e.prog.step(stepInput{clock: clock, read: read, fired: fired, extra: extra}, e.s)
	if err != nil {
		return fmt.Errorf("epoch %d: %w", next.Epoch, err)
	}
	next.Rows += int64(len(res.rows))
	next.Collapsed += res.collapsed
	next.measure(e.prog.stageIDs, res.keys)
	e.s.sizes = next.Sizes
	for i := range res.rows {
		res.rows[i].Epoch = next.Epoch
	}
	stepped := time.Now()
	ent, err := e.commit(next, res, fired, gone, a)
	if err != nil {
		return fmt.Errorf("commit epoch %d: %w", next.Epoch, err)
	}

	// Committed: make it known.
	e.mu.Lock()
	e.rec = next
	if ent.Bytes > 0 {
		e.outbox.committed(ent) // with the record, or Progress would say that nothing is left to publish
	}
	for i, n := range res.counts {
		if n != 0 {
			e.counters[e.c.Plan.Counters[i]] += n
		}
	}
	e.live.epochTime, e.live.commitTime, e.live.committedAt = time.Since(began), time.Since(stepped), e.c.Now()
	e.live.nextTimer = e.timers.next(plan.ProcessingTime)
	if in != nil {
		if e.live.received == nil {
			e.live.received = map[int32]int64{}
		}
		maps.Copy(e.live.received, in.last)
		e.live.caughtUpWith(next.Offsets)
	}
	e.mu.Unlock()
	e.metrics.epoch(time.Since(began), time.Since(stepped), in, res)
	e.traceEpoch(began, stepped, next.Epoch, in, len(res.rows))
	if a != nil {
		close(a.done)
	}
	if e.c.OnEpoch != nil {
		e.c.OnEpoch(e.Progress())
	}
	if took := time.Since(began); took > 5*time.Second {
		e.c.Logger.Warn("slow epoch", "epoch", next.Epoch, "took", took, "commit", e.live.commitTime, "rows", len(res.rows))
	}
	return nil
}

// dropExpiring lets the oldest of what expires go when it is more than it may be.
func (e *Engine) dropExpiring() (gone []expired, items int64) {
	if e.s.id.Format < formatHeld {
		return nil, 0
	}
	gone, items = e.s.buckets.drop(e.c.ExpiringLimit)
	if items > 0 {
		e.c.Logger.Warn("the records that may still be corrected are more than the limit: the oldest are not corrected any more; if they should be, give the job a higher limit",
			"limit", e.c.ExpiringLimit, "items", items)
	}
	return gone, items
}

// take moves what the source brought into the record of the epoch.
func (e *Engine) take(in *input, next *epochRecord) {
	next.Read += int64(in.records)
	next.Skipped += in.skipped
	if in.seeding != nil {
		next.Seeding = in.seeding
	}
	for p, o := range in.offsets {
		next.Offsets[p] = o
		h := e.last[p]
		h.records = next.Processing
		if t, ok := in.newest[p]; ok {
			h.times = next.Processing
			next.Newest[p] = max(next.Newest[p], t)
		}
		e.last[p] = h
	}
}

// commit makes an epoch durable: first its rows, then everything else, with the entry that names the rows, in one batch.
func (e *Engine) commit(next epochRecord, res *stepResult, fired [][]firedTimer, gone []expired, a *advance) (ent entry, err error) {
	b := e.s.db.NewBatchWithSize(batchSize(res))
	if len(res.rows) > 0 && len(e.sinks) > 0 {
		if ent, err = e.outbox.append(e.c.Plan, next.Epoch, res.rows, next.Offsets); err != nil {
			return ent, err
		}
		ent.Made = next.Processing
		if err := setJSON(b, appendOutboxKey(nil, ent.Epoch), ent); err != nil {
			return ent, err
		}
	}
	w := effects{b: b, epoch: next.Epoch, now: next.Processing, groups: e.c.KeyGroups, packer: e.s.packer}
	w.dropBuckets(gone)
	for stage := range fired {
		w.fired(e.prog.stageIDs[stage], fired[stage])
	}
	for stage, keys := range res.keys {
		for i := range keys {
			w.key(e.prog.stageIDs[stage], &keys[i])
			w.expiring(e.prog.stageIDs[stage], &keys[i], e.s.buckets)
			for _, t := range keys[i].SetTimers {
				e.timers.set(stage, t)
			}
		}
	}
	w.bucketSizes(e.s.buckets)
	w.dictionaries(e.s.packer)
	next.measureBuckets(e.s.buckets)
	for i, n := range res.counts {
		if n != 0 {
			name := e.c.Plan.Counters[i]
			w.set(append([]byte{kindCounter}, name...), binary.AppendVarint(nil, e.counters[name]+n))
		}
	}
	if a != nil {
		if err := setJSON(b, sinkKey(a.sink), a.position); err != nil {
			return ent, err
		}
	}
	if err := setJSON(b, keyEpoch, next); err != nil {
		return ent, err
	}
	if w.err != nil {
		return ent, w.err
	}
	if err := e.s.commit(b); err != nil {
		return ent, err // Pebble may still hold b
	}
	return ent, b.Close()
}

// batchSize estimates the size of the batch of an epoch: a batch that grows is copied.
func batchSize(res *stepResult) int {
	n := 4 << 10
	for _, keys := range res.keys {
		for i := range keys {
			k := &keys[i]
			if len(k.SetValue) > 0 {
				n += len(k.stateKey) + len(k.SetValue) + 8
			}
			if len(k.Append) > 0 {
				n += len(k.stateKey) + 16
			}
			for _, it := range k.Append {
				n += len(it) + 3
			}
			for _, it := range k.AppendUntil {
				n += len(it.Item) + len(k.stateKey) + 32
			}
			n += (len(k.SetTimers) + len(k.ClearTimers)) * (len(k.Key.Key) + 24)
		}
	}
	return n
}

// effects writes the effects of keys into a batch. The first error stays in err.
type effects struct {
	b       *pebble.Batch
	epoch   uint64
	now     int64 // the processing clock
	groups  int
	packer  *packer
	scratch []byte
	entry   []byte
	err     error
}

func (w *effects) note(err error) {
	if w.err == nil {
		w.err = err
	}
}

func (w *effects) set(key, value []byte) { w.note(w.b.Set(key, value, nil)) }

func (w *effects) fired(stage uint16, timers []firedTimer) {
	for _, f := range timers {
		w.timer(f.timer, stage, f.key, false)
	}
}

func (w *effects) timer(t plan.Timer, stage uint16, key []byte, set bool) {
	w.scratch = appendTimerKey(w.scratch[:0], t, stage, keyGroup(key, w.groups), key)
	if set {
		w.set(w.scratch, nil)
	} else {
		w.note(w.b.Delete(w.scratch, nil))
	}
}

func (w *effects) key(stage uint16, k *keyed) {
	switch {
	case k.SetValue == nil:
	case len(k.SetValue) > 0:
		if !bytes.Equal(k.SetValue, k.Value) {
			w.set(k.stateKey, w.packer.pack(dictKey{stage, kindValue}, k.SetValue))
		}
	case k.Value != nil:
		w.note(w.b.Delete(k.stateKey, nil))
	}
	if k.ReplaceList || len(k.Append) > 0 {
		w.list(stage, k)
	}
	for _, t := range k.ClearTimers {
		w.timer(t, stage, k.Key.Key, false)
	}
	for _, t := range k.SetTimers {
		w.timer(t, stage, k.Key.Key, true)
	}
}

// list deletes and appends entries of a key's list. The key of an entry holds its epoch and an epoch calls a key once, so
// no entry is written twice: that is what lets Pebble drop an entry and its deletion as soon as they meet.
func (w *effects) list(stage uint16, k *keyed) {
	w.scratch = append(append(w.scratch[:0], kindList), k.stateKey[1:]...)
	n := len(w.scratch)
	if k.ReplaceList {
		for _, epoch := range k.listEpochs {
			w.scratch = binary.BigEndian.AppendUint64(w.scratch[:n], epoch)
			w.note(w.b.SingleDelete(w.scratch, nil))
		}
	}
	if len(k.Append) > 0 {
		w.scratch = binary.BigEndian.AppendUint64(w.scratch[:n], w.epoch)
		w.entry = appendList(w.entry[:0], k.Append)
		w.set(w.scratch, w.packer.pack(dictKey{stage, kindList}, w.entry))
	}
}
