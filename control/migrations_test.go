package control

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Instances of before the lifecycle are in its states, what was decided then is history, and what serves serves.
func TestInstancesOfBefore(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.Exec(migrations[0])
	require.NoError(t, err)
	_, err = db.Exec(`INSERT INTO instances (program, account, env, data_version, seed, suspended, deleting, created) VALUES
			('app', 'system', 'system', 'unversioned', '', 1, 0, 1535391755000000),
			('app', 'system', 'system', '20180827174235', '{"source_types":["LMS"]}', 0, 0, 1535391756000000),
			('app', 'system', 'system', '20180827174236', '', 0, 1, 1535391757000000);
		INSERT INTO promotions (program, account, env, data_version, state) VALUES ('app', 'system', 'system', 'unversioned', 'served');
		INSERT INTO changes (at, program, account, env, data_version, action, who, reason) VALUES
			(1535391755000000, 'app', 'system', 'system', 'unversioned', 'start', 'system', ''),
			(1535391758000000, 'app', 'system', 'system', 'unversioned', 'suspend', 'hans.parra', 'it "waits"')`)
	require.NoError(t, err)
	require.NoError(t, db.Close())

	store, err := Open(path)
	require.NoError(t, err)
	defer store.Close()
	l := Line{Program: "app", Account: "system", Env: "system"}
	all, err := store.Instances.List(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 3)
	require.Equal(t, []State{Suspended, Running, Deleting}, []State{all[0].State, all[1].State, all[2].State})
	require.Equal(t, []string{"LMS"}, all[1].Seed.SourceTypes)
	history, err := store.Instances.History(t.Context(), l, 0, 10)
	require.NoError(t, err)
	require.Len(t, history, 2)
	require.Equal(t, Operation{
		ID: 2, Line: l, DataVersion: "unversioned", Action: Suspend, By: By{Who: "hans.parra", Reason: `it "waits"`}, State: Succeeded,
		Began: time.Unix(1535391758, 0).UTC(), Ended: time.Unix(1535391758, 0).UTC(),
	}, history[0])
	now, wanted, err := store.Instances.Serving(t.Context(), l)
	require.NoError(t, err)
	require.Equal(t, []string{"unversioned", "unversioned"}, []string{now, wanted})
}
