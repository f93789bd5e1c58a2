package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPace(t *testing.T) {
	t.Parallel()
	at := time.Unix(0, 0)
	p := newPace(100, 50, at)
	require.Equal(t, "0/s", p.String())
	for i := range 20 {
		at = at.Add(time.Second)
		p.add(int64(50+40*(i+1)), at)
		if i == 0 {
			require.Equal(t, "40/s", p.String(), "a start says nothing yet")
		}
	}
	require.Equal(t, "40/s (behind --rate 100)", p.String())
	for i := range 10 {
		at = at.Add(time.Second)
		p.add(int64(850+100*(i+1)), at)
	}
	require.Equal(t, "100/s", p.String(), "of the last ten seconds")

	require.Empty(t, p.behind(), "it has not ended")
	p.end(1850, at)
	require.Equal(t, "the district sent 60 items a second, behind --rate 100: this machine took no more", p.behind())
}
