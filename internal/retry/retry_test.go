package retry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/internal/retry"
)

var errBusy = errors.New("server is busy")

func TestRepeatsUntilSuccess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start, calls := time.Now(), 0
		var waits []time.Duration
		policy := retry.Policy{
			Min: time.Second, Max: 5 * time.Second, Rand: func() float64 { return 0.5 },
			OnRetry: func(attempt int, err error, wait time.Duration) {
				require.Equal(t, calls, attempt)
				require.ErrorIs(t, err, errBusy)
				waits = append(waits, wait)
			},
		}
		err := retry.Do(t.Context(), policy, func(context.Context) error {
			if calls++; calls < 6 {
				return errBusy
			}
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 2500 * time.Millisecond, 2500 * time.Millisecond}, waits)
		require.Equal(t, 8500*time.Millisecond, time.Since(start))
	})
}

// With the default jitter no wait is longer than its bound, however many attempts there were.
func TestWaitsStayBelowMax(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		policy := retry.Policy{
			Max: time.Second, Attempts: 200,
			OnRetry: func(attempt int, _ error, wait time.Duration) {
				require.LessOrEqual(t, wait, min(time.Second, 100*time.Millisecond<<min(attempt-1, 10)))
			},
		}
		require.Equal(t, errBusy, retry.Do(t.Context(), policy, func(context.Context) error { return errBusy }))
	})
}

func TestStopsAfterAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		err := retry.Do(t.Context(), retry.Policy{Attempts: 3}, func(context.Context) error {
			calls++
			return fmt.Errorf("call %d: %w", calls, errBusy)
		})
		require.EqualError(t, err, "call 3: server is busy")
	})
}

func TestPermanentStopsAtOnce(t *testing.T) {
	t.Parallel()
	calls := 0
	err := retry.Do(t.Context(), retry.Policy{}, func(context.Context) error {
		calls++
		return retry.Permanent(errBusy)
	})
	require.Equal(t, errBusy, err)
	require.Equal(t, 1, calls)

	err = retry.Do(t.Context(), retry.Policy{}, func(context.Context) error {
		return fmt.Errorf("put row 7: %w", retry.Permanent(errBusy))
	})
	require.EqualError(t, err, "put row 7: server is busy")
	require.ErrorIs(t, err, errBusy)
	require.NoError(t, retry.Permanent(nil))
}

func TestContextEndsTheWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		policy := retry.Policy{Min: time.Hour, Max: time.Hour, Rand: func() float64 { return 0.9 }}
		err := retry.Do(ctx, policy, func(context.Context) error { return errBusy })
		require.ErrorIs(t, err, errBusy)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualError(t, err, "context deadline exceeded; last attempt: server is busy")
		require.Equal(t, 3*time.Second, time.Since(start))
	})
}

func TestContextEndedBefore(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errBusy)
	err := retry.Do(ctx, retry.Policy{}, func(context.Context) error {
		t.Error("called although the context had ended")
		return nil
	})
	require.ErrorIs(t, err, errBusy)
}
