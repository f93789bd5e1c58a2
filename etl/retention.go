package etl

import (
	"math"
	"time"
)

// DefaultRetention is App.Retention unless the app says otherwise.
const DefaultRetention = 90 * 24 * time.Hour

const hour = int64(time.Hour / time.Microsecond)

// keep returns vs without the versions at its beginning that nobody needs any more: those that have had a successor for as long as
// the retention, and that no record needs whose event time is oldest or later.
//
// Only a prefix goes, and never the last, so that a record as old as oldest finds the version that it found before, and a deletion
// stays one. A record that comes later than that and is older takes the earliest version that is kept.
func (vs versions) keep(now int64, retention time.Duration, oldest int64) versions {
	if retention < 0 {
		return vs
	}
	n := 0
	for n < len(vs)-1 && vs[n].since*hour <= now-retention.Microseconds() && vs[n+1].validFrom <= oldest {
		n++
	}
	return vs[n:]
}

// superseded notes when the version at i, which was just added, came between others: a version's successor counts from when both
// were there.
func (vs versions) superseded(i int, now int64) {
	at := (now + hour - 1) / hour
	switch {
	case i < len(vs)-1:
		vs[i].since = at
	case i > 0:
		vs[i-1].since = at
	}
}

// trim gives up versions that are past the retention. It is done when the versions are written anyway: a key grows by nothing else.
func (c *joinCall) trim() {
	oldest := int64(math.MaxInt64)
	for _, it := range c.list {
		if !it.gone {
			oldest = min(oldest, it.flow.eventTime)
		}
	}
	kept := c.versions.keep(c.now, c.p.retention, oldest)
	c.out.count(c.p.counts.versionsDropped, int64(len(c.versions)-len(kept)))
	c.versions = kept
}
