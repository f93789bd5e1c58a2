package millrace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"millrace/etl"
	"millrace/eventlog"
	"millrace/lake"
	"millrace/plan"
	"millrace/record"
)

// replayBatch is how many items are appended to the log at once.
const replayBatch = 1000

// ReplayConfig says which dead letters are replayed. All but Tables, Stages and Letters, which choose some, are required.
type ReplayConfig struct {
	App       string // that made the letters
	Namespace string // of its tables in the lake
	Log       *eventlog.Log
	Lake      *lake.Lake

	Tables  []string // only letters of records that were for these tables; default: all, and those that could not be read at all
	Stages  []string // only letters that failed in these stages: read, flat_map, join, map, sink/elastic; default: all
	Letters []string // only letters with these ids; one that is not there is an error; default: all
}

// Replay feeds the records of dead letters to their app once more, through the log, and returns how many. Call it when a version of the app that does
// better is running, or will be: it takes each letter's own record up, with the id that it had, withdraws the letter when there is a row, and
// makes it anew when there is none. Replaying a letter again before the app has taken it up changes nothing.
//
// Letters are read from the lake: those that were made or withdrawn since its last snapshot are not known yet. What they were made of is read from
// the log.
func Replay(ctx context.Context, cfg ReplayConfig) (int, error) {
	letters, err := cfg.letters(ctx)
	if err != nil || len(letters) == 0 {
		return 0, err
	}
	if err := cfg.raise(ctx, letters); err != nil {
		return 0, err
	}
	positions := make([]record.Position, len(letters))
	for i := range letters {
		positions[i] = letters[i].at
	}
	items, err := cfg.Log.Items(ctx, positions)
	if err != nil {
		return 0, fmt.Errorf("read what dead letters were made of: %w", err)
	}
	at := make(map[record.Position]record.Item, len(items))
	for _, it := range items {
		at[it.Position] = it
	}
	for chunk := range slices.Chunk(letters, replayBatch) {
		out := make([]record.Item, len(chunk))
		for i, l := range chunk {
			out[i] = at[l.at]
			out[i].Replay = &l.replay
		}
		if err := cfg.Log.Append(ctx, out); err != nil {
			return 0, fmt.Errorf("replay %d dead letters, of which some may be in the log: %w; replay them again", len(letters), err)
		}
	}
	return len(letters), nil
}

// letter is a dead letter and where the log has what it was made of.
type letter struct {
	replay record.Replay
	at     record.Position
}

func (cfg ReplayConfig) letters(ctx context.Context) (letters []letter, err error) {
	table, err := cfg.Lake.Lookup(ctx, lake.Name{Namespace: cfg.Namespace, Table: etl.DeadLetterTable})
	if err != nil && (!errors.Is(err, lake.ErrNotFound) || len(cfg.Letters) > 0) {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	if err != nil {
		return nil, nil
	}
	missing := map[string]bool{}
	for _, id := range cfg.Letters {
		missing[id] = true
	}
	wanted := func(all []string, one string) bool { return len(all) == 0 || slices.Contains(all, one) }
	columns := []string{"_id", "_rev", "_sources", "table_name", "stage"}
	for row, err := range table.Scan(ctx, lake.ScanOptions{Columns: columns}) {
		if err != nil {
			return nil, fmt.Errorf("read dead letters: %w", err)
		}
		id, _ := row["_id"].(string)
		delete(missing, id)
		rev, _ := row["_rev"].(int64)
		l := letter{replay: record.Replay{App: cfg.App, Letter: id, Rev: uint64(rev) + 1}} //nolint:gosec // at most plan.MaxRev
		l.replay.Table, _ = row["table_name"].(string)
		l.replay.Stage, _ = row["stage"].(string)
		if !wanted(cfg.Tables, l.replay.Table) || !wanted(cfg.Stages, l.replay.Stage) || !wanted(cfg.Letters, id) {
			continue
		}
		if l.at, err = origin(row["_sources"]); err != nil {
			return nil, fmt.Errorf("dead letter %s: %w", id, err)
		}
		letters = append(letters, l)
	}
	for _, id := range cfg.Letters {
		if missing[id] {
			return nil, fmt.Errorf("there is no dead letter %s in the lake; 'millrace rows dead_letter' lists them", id)
		}
	}
	return letters, nil
}

// origin is the position in the first of a row's sources: "<kind> <id> <topic>/<partition>/<offset>".
func origin(sources any) (record.Position, error) {
	list, _ := sources.([]string)
	if len(list) == 0 {
		return record.Position{}, errors.New("it does not say what it was made of")
	}
	bad := fmt.Errorf("its source %q has no position in the log", list[0])
	parts := strings.Split(list[0][strings.LastIndexByte(list[0], ' ')+1:], "/")
	if len(parts) != 3 {
		return record.Position{}, bad
	}
	partition, err := strconv.ParseInt(parts[1], 10, 32)
	if err != nil {
		return record.Position{}, bad
	}
	offset, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil {
		return record.Position{}, bad
	}
	return record.Position{Topic: parts[0], Partition: int32(partition), Offset: offset}, nil
}

// raise takes the revisions of letters of refused rows above those that the rows have by now: other sinks took them, and later ones.
func (cfg ReplayConfig) raise(ctx context.Context, letters []letter) error {
	byTable := map[string]map[string][]int{} // letters by table and row id
	for i, l := range letters {
		if id, _, refused := strings.Cut(l.replay.Letter, "-"); refused {
			if byTable[l.replay.Table] == nil {
				byTable[l.replay.Table] = map[string][]int{}
			}
			byTable[l.replay.Table][id] = append(byTable[l.replay.Table][id], i)
		}
	}
	for name, rows := range byTable {
		table, err := cfg.Lake.Lookup(ctx, lake.Name{Namespace: cfg.Namespace, Table: name})
		if err != nil {
			return fmt.Errorf("read the revisions of refused rows: %w", err)
		}
		for row, err := range table.Scan(ctx, lake.ScanOptions{Columns: []string{"_id", "_rev"}}) {
			if err != nil {
				return fmt.Errorf("read the revisions of refused rows: %w", err)
			}
			id, _ := row["_id"].(string)
			rev, _ := row["_rev"].(int64)
			for _, i := range rows[id] {
				letters[i].replay.Rev = min(max(letters[i].replay.Rev, uint64(rev)+1), plan.MaxRev) //nolint:gosec // at most plan.MaxRev
			}
		}
	}
	return nil
}
