package index_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDocumentIsFoundAsItWasPut(t *testing.T) {
	t.Parallel()
	h := setup(t)
	source := `{"k":"x",  "o":{"n":[1,2]}}`
	require.Equal(t, "created", ok(t, h, "PUT", "/a/_doc/1", source)["result"])

	status, text := send(t, h, "GET", "/a/_source/1", "")
	require.Equal(t, 200, status)
	require.JSONEq(t, source, text)
	require.InDelta(t, 1, ok(t, h, "GET", "/a/_count", `{"query":{"term":{"o.n":2}}}`)["count"], 0)

	status, _ = send(t, h, "GET", "/a/_doc/2", "")
	require.Equal(t, 404, status)
}
