package caliper

import (
	"encoding/hex"
	"strings"
	"time"

	"github.com/zeebo/xxh3"

	"millrace/record"
)

// Identity returns what tells an item from others of its account and environment: its id, or, when it has none that means
// anything elsewhere (see Anonymous), "fp:" and the hex fingerprint of the JSON value that it is. So a redelivered event
// without an id is recognised however it is spelled. An item that is not JSON has "bytes:" and a hash of its bytes.
func Identity(item []byte, head Head) string {
	if !Anonymous(head.ID, head.Type) {
		return head.ID
	}
	fingerprint, err := record.Fingerprint(item)
	if err != nil {
		sum := xxh3.Hash128(item).Bytes()
		return "bytes:" + hex.EncodeToString(sum[:])
	}
	return "fp:" + hex.EncodeToString(fingerprint[:])
}

// Anonymous reports whether an entity's or event's id names nothing: it is empty; it is the type itself, which is how
// sensors write somebody they do not want to name; or it is a blank node (_:x), which is local to its envelope, so that
// the same label elsewhere is something else. Anonymous entities never join and are never merged.
func Anonymous(id, typ string) bool {
	return id == "" || id == typ || strings.HasPrefix(id, "_:") || Term(id) != id
}

// VersionTime returns from when a version of an entity is valid: its dateModified, else when the event or description was
// that carried it, else its envelope's sendTime. carrier is zero when the entity came by itself.
func VersionTime(head Head, sendTime, carrier time.Time) time.Time {
	switch {
	case !head.DateModified.IsZero():
		return head.DateModified
	case !carrier.IsZero():
		return carrier
	}
	return sendTime
}
