package control

import (
	"context"
	"database/sql"
	"fmt"
)

// Runs counts how often jobs had to be started again: the count is not lost with the process, nor with the state of the job, whose end it
// counts.
//
// A run begins and ends. One that begins though the last has not ended is a restart: the job had failed, or its process was killed. A job
// that was told to stop has ended.
type Runs struct{ db *sql.DB }

// Begin notes that a job of an instance begins to run, and returns how often it had to be started again until now.
func (r *Runs) Begin(ctx context.Context, uniqueID string) (restarts int64, err error) {
	err = r.db.QueryRowContext(ctx, `INSERT INTO runs (unique_id, restarts, running) VALUES (?, 0, 1)
		ON CONFLICT (unique_id) DO UPDATE SET restarts = restarts + running, running = 1 RETURNING restarts`, uniqueID).Scan(&restarts)
	if err != nil {
		return 0, fmt.Errorf("note that %s runs: %w", uniqueID, err)
	}
	return restarts, nil
}

// End notes that a job has ended as it was told to.
func (r *Runs) End(ctx context.Context, uniqueID string) error {
	if _, err := r.db.ExecContext(ctx, `UPDATE runs SET running = 0 WHERE unique_id = ?`, uniqueID); err != nil {
		return fmt.Errorf("note that %s has ended: %w", uniqueID, err)
	}
	return nil
}

// Forget removes what is known of an instance that is deleted.
func (r *Runs) Forget(ctx context.Context, uniqueID string) error {
	if _, err := r.db.ExecContext(ctx, `DELETE FROM runs WHERE unique_id = ?`, uniqueID); err != nil {
		return fmt.Errorf("forget the runs of %s: %w", uniqueID, err)
	}
	return nil
}

// Restarts returns how often the jobs of all instances had to be started again, by unique id.
func (r *Runs) Restarts(ctx context.Context) (map[string]int64, error) {
	rows, err := r.db.QueryContext(ctx, `SELECT unique_id, restarts FROM runs`)
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	defer rows.Close()
	all := map[string]int64{}
	for rows.Next() {
		var id string
		var n int64
		if err := rows.Scan(&id, &n); err != nil {
			return nil, fmt.Errorf("list runs: %w", err)
		}
		all[id] = n
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	return all, nil
}
