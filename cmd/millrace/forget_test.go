package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace"
	"millrace/control"
	"millrace/control/api"
)

// A forget that was killed leaves two data versions: the one that readers are to see stays, also when they did not see it yet.
func TestForgettingIsEnded(t *testing.T) {
	t.Parallel()
	for name, promoted := range map[string]bool{"before the promotion": false, "in the middle of the promotion": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, stop := runStack(t, filepath.Join(t.TempDir(), "data"))
			defer stop()
			by := control.By{Who: "test"}
			made, err := s.Start(t.Context(), etlLine.Program, api.Start{Who: "test"})
			require.NoError(t, err)
			file := s.cfg.dir.join(forgettingFile)
			require.NoError(t, writeJSON(file, forgetting{Old: millrace.Unversioned, New: made.DataVersion}))
			stays := millrace.Unversioned
			if promoted {
				stays = made.DataVersion
				require.NoError(t, s.store.Instances.Promote(t.Context(), etlLine, made.DataVersion, by))
			}
			require.NoError(t, s.endForgetting(t.Context(), by))
			require.Len(t, s.versions(), 1)
			require.Equal(t, stays, s.serving().instance.DataVersion)
			_, err = os.Stat(file)
			require.ErrorIs(t, err, fs.ErrNotExist)
		})
	}
}
