package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// List items that expire lie in buckets: stage │ instant │ key group │ key │ epoch. All of a bucket expire at its instant, and
// go by one range deletion, unread. A bucket's instant is at most an eighth of the items' life later than what they asked for, so
// that a key's items of one hour lie in about a dozen buckets.

// buckets knows the instants of the buckets of each stage that hold items. The loop changes it between steps.
type buckets struct{ live map[uint16][]int64 }

const expiringHeader = 13 // kind, stage id, instant, key group

// bucketOf returns the instant of the bucket for items appended now that expire at until.
func bucketOf(now, until int64) int64 {
	grain := int64(1) << (bits.Len64(uint64(max((until-now)/8, 1<<20))) - 1) //nolint:gosec // positive
	return (until + grain - 1) / grain * grain
}

// appendBucket appends what the keys of a bucket begin with. Instants are positive, so bytes sort like numbers.
func appendBucket(dst []byte, stage uint16, at int64) []byte {
	dst = append(dst, kindExpiring)
	dst = binary.BigEndian.AppendUint16(dst, stage)
	return binary.BigEndian.AppendUint64(dst, uint64(at)) //nolint:gosec // positive
}

// openBuckets finds the buckets that there are.
func openBuckets(s *state) (*buckets, error) {
	b := &buckets{live: map[uint16][]int64{}}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kindExpiring}, UpperBound: []byte{kindExpiring + 1}})
	if err != nil {
		return nil, err
	}
	for ok := it.First(); ok; {
		k := it.Key()
		if len(k) < expiringHeader {
			return nil, errors.Join(fmt.Errorf("key of a list item that expires: %x", k), it.Close())
		}
		stage, at := binary.BigEndian.Uint16(k[1:]), int64(binary.BigEndian.Uint64(k[3:])) //nolint:gosec // as written
		b.add(stage, at)
		ok = it.SeekGE(appendBucket(nil, stage, at+1))
	}
	return b, errors.Join(it.Error(), it.Close())
}

// add notes that a bucket holds items.
func (b *buckets) add(stage uint16, at int64) {
	live := b.live[stage]
	if i, found := slices.BinarySearch(live, at); !found {
		b.live[stage] = slices.Insert(live, i, at)
	}
}

// bucket is one that has expired.
type bucket struct {
	stage uint16
	at    int64
}

// expire returns the buckets that expire by now, and forgets them. The caller's commit deletes what they hold.
func (b *buckets) expire(now int64) (gone []bucket) {
	for stage, live := range b.live {
		n, _ := slices.BinarySearch(live, now+1)
		for _, at := range live[:n] {
			gone = append(gone, bucket{stage, at})
		}
		b.live[stage] = live[n:]
	}
	return gone
}

// loadExpiring adds the items that expire to the lists of keys that need theirs. Keys are sorted: each bucket is one forward pass.
func (s *state) loadExpiring(keys []keyed, held *arena) (err error) {
	stage := binary.BigEndian.Uint16(keys[0].stateKey[1:])
	live := s.buckets.live[stage]
	if len(live) == 0 {
		return nil
	}
	it, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: appendBucket(nil, stage, live[0]), UpperBound: appendBucket(nil, stage, live[len(live)-1]+1), UseL6Filters: true,
	})
	if err != nil {
		return fmt.Errorf("read expiring items: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var seek []byte
	for _, at := range live {
		for i := range keys {
			k := &keys[i]
			if !k.needList {
				continue
			}
			seek = append(appendBucket(seek[:0], stage, at), k.stateKey[3:]...)
			for ok := it.SeekPrefixGE(seek); ok; ok = it.Next() {
				k.expiringKeys = append(k.expiringKeys, held.copy(it.Key()))
				if k.List, err = splitList(k.List, held.copy(it.Value())); err != nil {
					return fmt.Errorf("expiring items of key %q: %w", k.Key.Key, err)
				}
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
		for _, key := range k.expiringKeys {
			w.note(w.b.SingleDelete(key, nil))
		}
	}
	// Most keys append one item; several of one bucket are one entry, as a key is written once an epoch.
	for rest := k.AppendUntil; len(rest) > 0; {
		at := bucketOf(w.now, rest[0].Until)
		w.entry = w.entry[:0]
		var later []int // of rest, those for other buckets
		for i := range rest {
			switch {
			case rest[i].Until <= w.now:
			case bucketOf(w.now, rest[i].Until) == at:
				w.entry = appendList(w.entry, [][]byte{rest[i].Item})
			default:
				later = append(later, i)
			}
		}
		if len(w.entry) > 0 {
			w.scratch = append(appendBucket(w.scratch[:0], stage, at), k.stateKey[3:]...)
			w.scratch = binary.BigEndian.AppendUint64(w.scratch, w.epoch)
			w.set(w.scratch, w.entry)
			b.add(stage, at)
		}
		next := rest[:0:0]
		for _, i := range later {
			next = append(next, rest[i])
		}
		rest = next
	}
}
