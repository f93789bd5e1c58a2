package lake

import (
	"context"
	"time"

	"github.com/apache/iceberg-go/table"
)

// propCompacted is when files of a table were last joined.
const propCompacted = keyPrefix + "compacted-at"

// Upkeep is the state of a table's maintenance.
type Upkeep struct {
	Snapshots int       // that are kept, the current one included
	Oldest    time.Time // when the oldest of them was made; zero when there is none
	Compacted time.Time // when files were last joined; zero when they never were
	Erased    int64     // rows that Erase has ever removed
}

// Upkeep returns the state of the table's maintenance.
func (t *Table) Upkeep(ctx context.Context) (Upkeep, error) {
	if err := t.load(ctx); err != nil {
		return Upkeep{}, err
	}
	return upkeepOf(t.seen()), nil
}

func upkeepOf(tbl *table.Table) (u Upkeep) {
	for _, s := range tbl.Metadata().Snapshots() {
		if isClaim(s) {
			continue
		}
		u.Snapshots++
		if at := time.UnixMilli(s.TimestampMs).UTC(); u.Oldest.IsZero() || at.Before(u.Oldest) {
			u.Oldest = at
		}
	}
	u.Erased = erasedRows(tbl)
	u.Compacted, _ = time.Parse(time.RFC3339, tbl.Properties()[propCompacted]) // what another program made of it is not known
	return u
}
