package engine

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"millrace/plan"
)

// List items that expire lie in buckets: stage │ instant │ key group │ key │ epoch. All of a bucket expire at its instant, and
// go by one range deletion, unread. A bucket's instant is at most an eighth of the items' life later than what they asked for, so
// that a key's items of one hour lie in about a dozen buckets.
//
// What all buckets hold is bounded: beyond Config.ExpiringLimit the oldest are dropped before their time, those of all stages that have
// the same instant or an earlier one together. Items that must not go early have buckets of their own, at odd instants.

// buckets knows the buckets of each stage that hold items, by instant. The loop changes it between steps.
type buckets struct{ live map[uint16][]bucket }

// bucket is one of them, with how much it holds: its size is a key of its own, written when it changes.
type bucket struct {
	at           int64
	items, bytes int64
	changed      bool // since its size was written
}

const expiringHeader = 13 // kind, stage id, instant, key group

// heldBucket is the bit of a bucket's instant, which every grain leaves free, that says that its items must not go early.
const heldBucket = 1

// bucketOf returns the instant of the bucket for an item appended now.
func bucketOf(now int64, x plan.Expiring) int64 {
	grain := int64(1) << (bits.Len64(uint64(max((x.Until-now)/8, 1<<20))) - 1) //nolint:gosec // positive
	at := (x.Until + grain - 1) / grain * grain
	if x.Hold {
		at |= heldBucket
	}
	return at
}

// appendBucket appends what the keys of a bucket begin with. Instants are positive, so bytes sort like numbers.
func appendBucket(dst []byte, stage uint16, at int64) []byte {
	dst = append(dst, kindExpiring)
	dst = binary.BigEndian.AppendUint16(dst, stage)
	return binary.BigEndian.AppendUint64(dst, uint64(at)) //nolint:gosec // positive
}

func appendBucketSizeKey(dst []byte, stage uint16, at int64) []byte {
	dst = append(dst, keyBucket...)
	return append(dst, appendBucket(nil, stage, at)[1:]...)
}

// openBuckets finds the buckets that there are.
func openBuckets(s *state) (*buckets, error) {
	b := &buckets{live: map[uint16][]bucket{}}
	err := s.scan(keyBucket, func(k, v []byte) error {
		items, n := binary.Varint(v)
		bytes, m := binary.Varint(v[max(n, 0):])
		if k = k[len(keyBucket):]; len(k) != expiringHeader-3 || n <= 0 || m <= 0 {
			return fmt.Errorf("size of a bucket: %x: %x", k, v)
		}
		stage := binary.BigEndian.Uint16(k)
		b.live[stage] = append(b.live[stage], bucket{at: int64(binary.BigEndian.Uint64(k[2:])), items: items, bytes: bytes}) //nolint:gosec // as written
		return nil
	})
	return b, err
}

// add adds to the size of a bucket, which may be new.
func (b *buckets) add(stage uint16, at, items, bytes int64) {
	live := b.live[stage]
	i, found := slices.BinarySearchFunc(live, at, func(x bucket, at int64) int { return cmp.Compare(x.at, at) })
	if !found {
		live = slices.Insert(live, i, bucket{at: at})
		b.live[stage] = live
	}
	live[i].items += items
	live[i].bytes += bytes
	live[i].changed = true
}

// stages returns the stages with buckets in one order: the same epoch makes the same commit.
func (b *buckets) stages() []uint16 { return slices.Sorted(maps.Keys(b.live)) }

// expired is a bucket whose instant has come.
type expired struct {
	stage uint16
	at    int64
}

// expire returns the buckets that expire by now, and forgets them. The caller's commit deletes what they hold.
func (b *buckets) expire(now int64) (gone []expired) {
	for _, stage := range b.stages() {
		live, n := b.live[stage], 0
		for n < len(live) && live[n].at <= now {
			gone = append(gone, expired{stage, live[n].at})
			n++
		}
		b.live[stage] = live[n:]
	}
	return gone
}

// drop returns the oldest buckets that must go for the rest to hold at most limit bytes, and forgets them, as expire does. It says how
// many items that are.
func (b *buckets) drop(limit int64) (gone []expired, items int64) {
	total, byInstant := int64(0), map[int64]int64{}
	for _, live := range b.live {
		for _, x := range live {
			total += x.bytes
			if x.at&heldBucket == 0 {
				byInstant[x.at] += x.bytes
			}
		}
	}
	if total <= limit {
		return nil, 0
	}
	until := int64(0)
	for _, at := range slices.Sorted(maps.Keys(byInstant)) {
		if total <= limit {
			break
		}
		total -= byInstant[at]
		until = at
	}
	for _, stage := range b.stages() {
		b.live[stage] = slices.DeleteFunc(b.live[stage], func(x bucket) bool {
			goes := x.at <= until && x.at&heldBucket == 0
			if goes {
				gone = append(gone, expired{stage, x.at})
				items += x.items
			}
			return goes
		})
	}
	return gone, items
}

// size returns how much all buckets of a stage hold.
func (b *buckets) size(stage uint16) (items, bytes int64) {
	for _, x := range b.live[stage] {
		items += x.items
		bytes += x.bytes
	}
	return items, bytes
}

// dropBuckets deletes what expired.
func (w *effects) dropBuckets(gone []expired) {
	for _, x := range gone {
		w.note(w.b.DeleteRange(appendBucket(nil, x.stage, x.at), appendBucket(nil, x.stage, x.at+1), nil))
		w.note(w.b.Delete(appendBucketSizeKey(nil, x.stage, x.at), nil))
	}
}

// bucketSizes writes the sizes that changed.
func (w *effects) bucketSizes(b *buckets) {
	for _, stage := range b.stages() {
		live := b.live[stage]
		for i := range live {
			if x := &live[i]; x.changed {
				x.changed = false
				w.set(appendBucketSizeKey(nil, stage, x.at), binary.AppendVarint(binary.AppendVarint(nil, x.items), x.bytes))
			}
		}
	}
}

// expiringEntry is an entry of a bucket that was loaded.
type expiringEntry struct {
	key          []byte
	items, bytes int64
}

// loadExpiring adds the items that expire to the lists of keys that need theirs. Keys are sorted: each bucket is one forward pass.
func (s *state) loadExpiring(keys []keyed, held *arena) (err error) {
	stage := binary.BigEndian.Uint16(keys[0].stateKey[1:])
	live := s.buckets.live[stage]
	if len(live) == 0 {
		return nil
	}
	it, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: appendBucket(nil, stage, live[0].at), UpperBound: appendBucket(nil, stage, live[len(live)-1].at+1), UseL6Filters: true,
	})
	if err != nil {
		return fmt.Errorf("read expiring items: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var seek []byte
	for _, x := range live {
		for i := range keys {
			k := &keys[i]
			if !k.needList {
				continue
			}
			seek = append(appendBucket(seek[:0], stage, x.at), k.stateKey[3:]...)
			for ok := it.SeekPrefixGE(seek); ok; ok = it.Next() {
				before := len(k.List)
				v, err := it.ValueAndErr()
				if err != nil {
					return fmt.Errorf("read expiring items: %w", err)
				}
				entry, err := s.packer.unpack(dictKey{stage, kindList}, v, held)
				if err == nil {
					k.List, err = splitList(k.List, entry)
				}
				if err != nil {
					return fmt.Errorf("expiring items of key %q: %w", k.Key.Key, err)
				}
				k.expiring = append(k.expiring, expiringEntry{held.copy(it.Key()), int64(len(k.List) - before), sizeOf(k.List[before:])})
			}
			if err := it.Error(); err != nil {
				return fmt.Errorf("read expiring items: %w", err)
			}
		}
	}
	return nil
}

// expiring deletes and appends the items of a key that expire. Deleted ones were written once, see effects.list.
func (w *effects) expiring(stage uint16, k *keyed, b *buckets) {
	if k.ReplaceList {
		for _, e := range k.expiring {
			w.note(w.b.SingleDelete(e.key, nil))
			b.add(stage, int64(binary.BigEndian.Uint64(e.key[3:])), -e.items, -e.bytes) //nolint:gosec // as written
		}
	}
	// Most keys append one item; several of one bucket are one entry, as a key is written once an epoch.
	for rest := k.AppendUntil; len(rest) > 0; {
		at := bucketOf(w.now, rest[0])
		w.entry = w.entry[:0]
		items, bytes := int64(0), int64(0)
		var later []plan.Expiring // of rest, those for other buckets
		for i := range rest {
			switch {
			case rest[i].Until <= w.now:
			case bucketOf(w.now, rest[i]) == at:
				w.entry = appendList(w.entry, [][]byte{rest[i].Item})
				items++
				bytes += int64(len(rest[i].Item))
			default:
				later = append(later, rest[i])
			}
		}
		if len(w.entry) > 0 {
			w.scratch = append(appendBucket(w.scratch[:0], stage, at), k.stateKey[3:]...)
			w.scratch = binary.BigEndian.AppendUint64(w.scratch, w.epoch)
			w.set(w.scratch, w.packer.pack(dictKey{stage, kindList}, w.entry))
			b.add(stage, at, items, bytes)
		}
		rest = later
	}
}
