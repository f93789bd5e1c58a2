package engine

import (
	"bytes"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"
	"github.com/zeebo/xxh3"

	"millrace/plan"
)

// The kinds of keys in the state, drawn in docs/formats/state.md.
const (
	kindCounter  = 'c'
	kindList     = 'l'
	kindMeta     = 'm'
	kindOutbox   = 'o'
	kindSink     = 'p'
	kindTimer    = 't'
	kindValue    = 'v'
	kindExpiring = 'x'
)

var (
	keyIdentity = []byte("midentity")
	keyEpoch    = []byte("mepoch")
	keyBucket   = []byte("mbucket") // followed by a stage id and an instant

	keyDictionary = []byte("mdictionary") // followed by a stage id and a kind
)

// stageHeader is the length of kind, stage id and key group.
const stageHeader = 5

// keyGroup is fixed for the life of an instance: it is part of every key.
func keyGroup(key []byte, groups int) uint16 {
	return uint16(xxh3.Hash(key) % uint64(groups))
}

// appendValueKey appends the key of a value. The key of the same key's list differs in the first byte alone, and in the
// epoch that follows.
func appendValueKey(dst []byte, stage, group uint16, key []byte) []byte {
	dst = append(dst, kindValue)
	dst = binary.BigEndian.AppendUint16(dst, stage)
	dst = binary.BigEndian.AppendUint16(dst, group)
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	return append(dst, key...)
}

// appendTimerKey appends the key of a timer. The instant's sign bit is flipped so that bytes sort like numbers.
func appendTimerKey(dst []byte, t plan.Timer, stage, group uint16, key []byte) []byte {
	dst = appendTimerPrefix(dst, t.Domain, stage)
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.At)^1<<63)
	dst = binary.BigEndian.AppendUint16(dst, group)
	return append(dst, key...)
}

const timerPrefix = 4 // kind, domain, stage id

func appendTimerPrefix(dst []byte, d plan.TimeDomain, stage uint16) []byte {
	dst = append(dst, kindTimer, byte(d))
	return binary.BigEndian.AppendUint16(dst, stage)
}

// parseTimerKey returns the instant and the key of a timer's key; ok is false when it is too short to be one.
func parseTimerKey(k []byte) (at int64, key []byte, ok bool) {
	if len(k) < timerPrefix+10 {
		return 0, nil, false
	}
	return int64(binary.BigEndian.Uint64(k[timerPrefix:]) ^ 1<<63), k[timerPrefix+10:], true
}

func appendOutboxKey(dst []byte, epoch uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, kindOutbox), epoch)
}

// splitKey returns the length of what a bloom filter is asked for: a value's or list's key without the epoch.
func splitKey(k []byte) int {
	header := stageHeader
	if len(k) > 0 && k[0] == kindExpiring {
		header = expiringHeader
	}
	if len(k) <= header || (k[0] != kindValue && k[0] != kindList && k[0] != kindExpiring) {
		return len(k)
	}
	n, w := binary.Uvarint(k[header:])
	if w <= 0 || n > uint64(len(k)-header-w) {
		return len(k)
	}
	return header + w + int(n)
}

// comparer orders keys by their bytes. Keys are prefix-free up to the split (they hold their length), so comparing
// whole keys is comparing prefixes and then suffixes. Separators are not shortened: a shortened key would split
// differently.
var comparer = &pebble.Comparer{
	Name:                 "millrace.state.1",
	Compare:              bytes.Compare,
	Equal:                bytes.Equal,
	ComparePointSuffixes: bytes.Compare,
	CompareRangeSuffixes: bytes.Compare,
	AbbreviatedKey:       pebble.DefaultComparer.AbbreviatedKey,
	FormatKey:            pebble.DefaultComparer.FormatKey,
	Split:                splitKey,
	Separator:            func(dst, a, _ []byte) []byte { return append(dst, a...) },
	Successor:            func(dst, a []byte) []byte { return append(dst, a...) },
	ImmediateSuccessor:   func(dst, a []byte) []byte { return append(append(dst, a...), 0) },
}
