package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace"
	"millrace/control"
)

// A forget that was killed leaves two data versions: the one that readers are to see stays, also when they did not see it yet.
func TestForgettingIsEnded(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"before the promotion", "in the middle of the promotion", "in the middle of the deletion"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, stop := runStack(t, filepath.Join(t.TempDir(), "data"))
			defer stop()
			made := s.done(t, control.Start, "")
			file := s.cfg.dir.join(forgettingFile)
			require.NoError(t, writeJSON(file, forgetting{App: etlLine.Program, Old: millrace.Unversioned, New: made.DataVersion}))
			stays := millrace.Unversioned
			begin := func(a control.Action) { // and no further, as far as forget is concerned
				_, err := s.plane.Do(t.Context(), control.Request{Line: etlLine, DataVersion: made.DataVersion, Action: a, By: test.By(), Role: control.Admin})
				require.NoError(t, err)
			}
			switch name {
			case "in the middle of the promotion":
				stays = made.DataVersion
				begin(control.Promote)
			case "in the middle of the deletion":
				begin(control.Delete)
			}
			require.NoError(t, s.endForgetting(t.Context(), test))
			require.Len(t, s.versions(), 1)
			require.Equal(t, stays, s.servingOf(etlLine).instance.DataVersion)
			_, err := os.Stat(file)
			require.ErrorIs(t, err, fs.ErrNotExist)
		})
	}
}
