package plan_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/avro"

	"millrace/plan"
)

var everyType = plan.Schema{Name: "Every", Columns: []plan.Column{
	{Name: "s", Type: plan.String},
	{Name: "b", Type: plan.Bool},
	{Name: "l", Type: plan.Long},
	{Name: "d", Type: plan.Double},
	{Name: "t", Type: plan.Timestamp},
	{Name: "y", Type: plan.Bytes},
	{Name: "a", Type: plan.Strings},
	{Name: "ns", Type: plan.String, Nullable: true},
	{Name: "nd", Type: plan.Double, Nullable: true},
	{Name: "na", Type: plan.Strings, Nullable: true},
}}

func row() []plan.Cell {
	return []plan.Cell{
		{Bytes: []byte("grüße")},
		{Bool: true},
		{Int: math.MinInt64},
		{Float: 92.4},
		{Int: 1534435679000001},
		{Bytes: []byte{0, 255}},
		{List: [][]byte{[]byte("x"), {}}},
		{Null: true},
		{Float: -0.5},
		{List: [][]byte{[]byte("y")}},
	}
}

// Another implementation of Avro reads what Append writes, by the schema that Avro prints.
func TestAvroIsAvro(t *testing.T) {
	t.Parallel()
	value, err := everyType.Append(nil, row())
	require.NoError(t, err)

	schema, err := avro.Parse(everyType.Avro())
	require.NoError(t, err)
	var got struct {
		S  string    `avro:"s"`
		B  bool      `avro:"b"`
		L  int64     `avro:"l"`
		D  float64   `avro:"d"`
		T  time.Time `avro:"t"`
		Y  []byte    `avro:"y"`
		A  []string  `avro:"a"`
		NS *string   `avro:"ns"`
		ND *float64  `avro:"nd"`
		NA []string  `avro:"na"`
	}
	rest, err := schema.Decode(value, &got)
	require.NoError(t, err)
	require.Empty(t, rest)
	require.Equal(t, "grüße", got.S)
	require.True(t, got.B)
	require.Equal(t, int64(math.MinInt64), got.L)
	require.InEpsilon(t, 92.4, got.D, 0)
	require.Equal(t, int64(1534435679000001), got.T.UnixMicro())
	require.Equal(t, []byte{0, 255}, got.Y)
	require.Equal(t, []string{"x", ""}, got.A)
	require.Nil(t, got.NS)
	require.Equal(t, -0.5, *got.ND)
	require.Equal(t, []string{"y"}, got.NA)
}

func TestAvroRoundTrip(t *testing.T) {
	t.Parallel()
	value, err := everyType.Append(nil, row())
	require.NoError(t, err)
	cells := make([]plan.Cell, len(everyType.Columns))
	require.NoError(t, everyType.Decode(value, cells))
	again, err := everyType.Append(nil, cells)
	require.NoError(t, err)
	require.Equal(t, value, again)

	for n := range value {
		require.Error(t, everyType.Decode(value[:n], cells), "cut after %d of %d bytes", n, len(value))
	}
	require.ErrorContains(t, everyType.Decode(append(value, 0), cells), "1 bytes too many")
}

func TestAppendRefusesNull(t *testing.T) {
	t.Parallel()
	cells := row()
	cells[0] = plan.Cell{Null: true}
	_, err := everyType.Append(nil, cells)
	require.EqualError(t, err, "column s of Every is null and not nullable")
}
