package etl_test

import (
	"runtime"
	"testing"
	"unsafe"
	"weak"

	"github.com/stretchr/testify/require"

	"millrace/caliper"
	"millrace/etl"
	"millrace/plan"
	"millrace/record"
)

// TestReadLetsGo sees that a record's bytes can be freed once its epoch is over, however small the epochs are that come after it.
func TestReadLetsGo(t *testing.T) { //nolint:paralleltest // what other tests read would take the place of what this one looks at
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // on another processor a call would not find what the one before it kept
	p, err := etl.App{Name: "test-job", Version: "1.0.0", Tables: []etl.Transformer{chain(etl.Events(caliper.OutcomeEvent), follow(0, "event.ref"))}}.Plan()
	require.NoError(t, err)
	read := func() weak.Pointer[byte] {
		e := event(linkEvent)
		p.Read([]record.Item{e}, plan.NewOutput(p))
		return weak.Make(unsafe.SliceData(e.Bytes))
	}
	first := read()
	for range 3 { // between two collections, or what is kept for the next call would be dropped
		read()
		runtime.GC()
	}
	require.Nil(t, first.Value())
}
