package control_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/control"
)

func TestAudit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	store := openStore(t, path)
	for _, action := range []string{"suspend", "resume", "delete"} {
		require.NoError(t, store.Audit.Add(t.Context(), control.Entry{Who: "hans.parra", Role: "operator", Action: action, Subject: "app a", Outcome: "operation 1"}))
	}
	all, err := store.Audit.List(t.Context(), 0, 2)
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, "delete", all[0].Action)
	rest, err := store.Audit.List(t.Context(), all[1].ID, 2)
	require.NoError(t, err)
	require.Len(t, rest, 1)
	require.Equal(t, "suspend", rest[0].Action)

	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer db.Close()
	for _, change := range []string{"UPDATE audit SET who = 'nobody'", "DELETE FROM audit"} {
		_, err = db.Exec(change)
		require.ErrorContains(t, err, "the audit log is only added to", "not even by another program")
	}
}
