package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBar(t *testing.T) {
	t.Parallel()
	require.Empty(t, bar(5, 0))
	require.Equal(t, "[------------------------]   0 %  0.0 of 2.0 MB  ", bar(0, 2e6))
	require.Equal(t, "[############------------]  50 %  1.0 of 2.0 MB  ", bar(1e6, 2e6))
	require.Equal(t, "[########################] 100 %  2.0 of 2.0 MB  ", bar(3e6, 2e6))
}
