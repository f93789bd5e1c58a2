package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// A gate is shut once nobody is inside, and whoever comes then waits until it is opened.
func TestGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g gate
		ctx := t.Context()
		require.NoError(t, g.enter(ctx, "upgrade of a"))
		require.NoError(t, g.enter(ctx, "start of a"))
		shut := make(chan func())
		go func() {
			open, err := g.shut(ctx)
			if err == nil {
				shut <- open
			}
		}()
		synctest.Wait()
		require.NoError(t, g.enter(ctx, "start of b"), "who is inside may need another to get out")
		for _, what := range []string{"start of b", "start of a"} {
			g.leave(what)
			synctest.Wait()
			select {
			case <-shut:
				require.Fail(t, "it is shut with somebody inside")
			default:
			}
		}
		given, giveUp := context.WithCancelCause(ctx)
		giveUp(errors.New("enough"))
		_, err := g.shut(given)
		require.EqualError(t, err, "upgrade of a is at work: enough")
		g.leave("upgrade of a")
		open := <-shut

		entered := make(chan struct{})
		go func() {
			if g.enter(ctx, "start of c") == nil {
				close(entered)
			}
		}()
		require.EqualError(t, g.enter(given, "start of d"), "enough")
		synctest.Wait()
		select {
		case <-entered:
			require.Fail(t, "it is shut and somebody is inside")
		default:
		}
		open()
		open() // opening twice is opening once
		<-entered
		g.leave("start of c")
	})
}
