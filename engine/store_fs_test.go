package engine_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"millrace/record"
)

// What Pebble writes in the background may fail at any file and at any point of it: the job ends with the cause.
func TestBackgroundDiskErrors(t *testing.T) {
	t.Parallel()
	writes := map[string][]errorfs.OpKind{
		"create": {errorfs.OpCreate}, "write": {errorfs.OpFileWrite},
		"sync": {errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo},
	}
	for file, fails := range map[string][]string{
		".blob": {"create", "write", "sync"}, ".sst": {"create", "write", "sync"}, "MANIFEST": {"write", "sync"}, "/state": {"sync"},
	} {
		for _, what := range fails {
			t.Run(file+" "+what, func(t *testing.T) {
				t.Parallel()
				failing := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
					if slices.Contains(writes[what], op.Kind) && (strings.HasSuffix(op.Path, file) || strings.Contains(op.Path, "/"+file)) {
						return errors.New("no space left on device")
					}
					return nil
				})}
				mem := vfs.NewCrashableMem()
				c := config(t, newLog(), &memory{name: "index"})
				c.Plan, c.FS, c.MemTableBytes = bulkyPlan(), errorfs.Wrap(mem, failing), 16<<10
				j := start(t, c)
				failing.On()
				items := make([]record.Item, 200)
				for i := range items {
					items[i] = record.Item{ID: fmt.Sprintf("key-%04d", i), Bytes: []byte(`"keep"`)}
				}
				for i := range items {
					j.log.append(0, items[i])
				}
				<-j.done
				require.ErrorContains(t, j.end(), "no space left on device")

				c.FS = mem.CrashClone(vfs.CrashCloneCfg{})
				j = start(t, c)
				j.settle()
				j.stop()
			})
		}
	}
}
