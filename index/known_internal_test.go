package index

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// What was added is known, and of what was not little seems to be.
func TestKnown(t *testing.T) {
	t.Parallel()
	const n = 200_000
	k := newKnown(0) // it grows
	for i := range n {
		k.add(hash(strconv.Itoa(i)))
	}
	require.Len(t, k.filters, 2)
	seem := 0
	for i := range n {
		require.True(t, k.has(hash(strconv.Itoa(i))))
		if k.has(hash("new " + strconv.Itoa(i))) {
			seem++
		}
	}
	require.Less(t, seem, n/5000)
}
