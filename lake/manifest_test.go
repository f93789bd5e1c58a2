package lake_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/avro"
	"github.com/twmb/avro/ocf"

	"millrace/lake"
)

// The raw tables' partitioning, with columns of other types beside.
var (
	rawSchema = iceberg.NewSchema(0,
		iceberg.NestedField{ID: 1, Name: "source_type", Type: iceberg.PrimitiveTypes.String, Required: true},
		iceberg.NestedField{ID: 2, Name: "account", Type: iceberg.PrimitiveTypes.String, Required: true},
		iceberg.NestedField{ID: 3, Name: "env", Type: iceberg.PrimitiveTypes.String, Required: true},
		iceberg.NestedField{ID: 4, Name: "event_time", Type: iceberg.PrimitiveTypes.TimestampTz, Required: true},
		iceberg.NestedField{ID: 5, Name: "payload", Type: iceberg.PrimitiveTypes.Binary},
		iceberg.NestedField{ID: 6, Name: "score", Type: iceberg.PrimitiveTypes.Float64},
	)
	rawSpec = iceberg.NewPartitionSpec(
		iceberg.PartitionField{SourceIDs: []int{1}, FieldID: 1000, Name: "source_type", Transform: iceberg.IdentityTransform{}},
		iceberg.PartitionField{SourceIDs: []int{2}, FieldID: 1001, Name: "account", Transform: iceberg.IdentityTransform{}},
		iceberg.PartitionField{SourceIDs: []int{3}, FieldID: 1002, Name: "env", Transform: iceberg.IdentityTransform{}},
		iceberg.PartitionField{SourceIDs: []int{4}, FieldID: 1003, Name: "event_time_day", Transform: iceberg.DayTransform{}},
	)
	rawColumns = lake.ManifestColumns{SourceType: 1000, Account: 1001, Env: 1002, Day: 1003, Time: 4}
)

// manifest is one of n entries that iceberg-go writes under a version of the format. Some entries lack statistics, some are of files that are gone.
func manifest(t testing.TB, version, n int) []byte {
	t.Helper()
	rnd := rand.New(rand.NewPCG(uint64(version), uint64(n)))
	snapshot, sequence := int64(7), int64(3)
	var entries []iceberg.ManifestEntry
	for i := range n {
		at := time.Date(1969, 12, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rnd.Int64N(int64(60 * 24 * time.Hour)))).UnixMicro()
		day := int32(math.Floor(float64(at) / 86400e6))
		b, err := iceberg.NewDataFileBuilder(rawSpec, iceberg.EntryContentData, fmt.Sprintf("file:///lake/raw/events/data/%d.parquet", i), iceberg.ParquetFile,
			map[int]any{1000: lms, 1001: []string{"", "district-1", "école"}[rnd.IntN(3)], 1002: fmt.Sprint("env-", rnd.IntN(3)), 1003: iceberg.Date(day)},
			map[int]string{1003: "date"}, nil, rnd.Int64N(1<<40), rnd.Int64N(1<<20))
		require.NoError(t, err)
		counts, nans := map[int]int64{}, map[int]int64{}
		lower, upper := map[int][]byte{}, map[int][]byte{}
		for id := 1; id <= 6; id++ {
			counts[id], nans[id] = rnd.Int64(), rnd.Int64N(100)
			lower[id], upper[id] = fmt.Append(nil, "a", i), fmt.Append(nil, "z", i)
		}
		switch rnd.IntN(5) {
		case 0:
			lower, upper = nil, nil
		case 1:
			delete(lower, 4)
			upper[4] = []byte{1}
		default:
			lower[4] = binary.LittleEndian.AppendUint64(nil, uint64(at))
			upper[4] = binary.LittleEndian.AppendUint64(nil, uint64(at+5))
		}
		b.ColumnSizes(counts).ValueCounts(counts).NullValueCounts(nans).NaNValueCounts(nans).LowerBoundValues(lower).UpperBoundValues(upper).
			SplitOffsets([]int64{4, 1 << 30}).KeyMetadata([]byte{1, 2, 3}).SortOrderID(0)
		status := []iceberg.ManifestEntryStatus{iceberg.EntryStatusADDED, iceberg.EntryStatusEXISTING, iceberg.EntryStatusDELETED}[rnd.IntN(3)]
		entries = append(entries, iceberg.NewManifestEntry(status, &snapshot, &sequence, &sequence, b.Build()))
	}
	var out bytes.Buffer
	_, err := iceberg.WriteManifest("m.avro", &out, version, rawSpec, rawSchema, snapshot, entries)
	require.NoError(t, err)
	return out.Bytes()
}

// recoded is a manifest under another codec, and another schema if that is not nil.
func recoded(t testing.TB, content []byte, codec ocf.Codec, change func(root *avro.SchemaNode, entry map[string]any)) []byte {
	t.Helper()
	in, err := ocf.NewReader(bytes.NewReader(content))
	require.NoError(t, err)
	root := in.Schema().Root()
	if change != nil {
		change(root, nil)
	}
	schema, err := root.Schema()
	require.NoError(t, err)
	var out bytes.Buffer
	w, err := ocf.NewWriter(&out, schema, ocf.WithCodec(codec), ocf.WithBlockBytes(2000), ocf.WithSyncMarker([16]byte{1, 2, 3}))
	require.NoError(t, err)
	for {
		var entry map[string]any
		err := in.Decode(&entry)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if change != nil {
			change(root, entry)
		}
		require.NoError(t, w.Encode(entry))
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

// manifestOracle is what a manifest says by the library that makes values of all there is. Not all that the library reads is a manifest.
func manifestOracle(content []byte) (files []lake.ManifestFile, isManifest bool, err error) {
	r, err := ocf.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, false, err
	}
	names := map[int]string{}
	for _, f := range r.Schema().Root().Fields {
		for _, f := range f.Type.Fields {
			for _, p := range f.Type.Fields {
				switch id := p.Props["field-id"].(type) {
				case float64:
					names[int(id)] = p.Name
				case int64:
					names[int(id)] = p.Name
				}
			}
		}
	}
	isManifest = true
	number := func(v any) int64 {
		switch v := v.(type) {
		case int32:
			return int64(v)
		case int64:
			return v
		}
		isManifest = false
		return 0
	}
	for {
		var entry map[string]any
		if err := r.Decode(&entry); errors.Is(err, io.EOF) {
			return files, isManifest, nil
		} else if err != nil {
			return nil, false, err
		}
		status := number(entry["status"])
		if status == 2 {
			continue
		}
		file, _ := entry["data_file"].(map[string]any)
		part, _ := file["partition"].(map[string]any)
		f := lake.ManifestFile{Records: number(file["record_count"]), Bytes: number(file["file_size_in_bytes"])}
		var ok [4]bool
		f.SourceType, ok[0] = part[names[1000]].(string)
		f.Account, ok[1] = part[names[1001]].(string)
		f.Env, ok[2] = part[names[1002]].(string)
		switch d := part[names[1003]].(type) {
		case time.Time:
			f.Day, ok[3] = int32(math.Floor(float64(d.Unix())/86400)), true
		case int32:
			f.Day, ok[3] = d, true
		}
		isManifest = isManifest && ok == [4]bool{true, true, true, true} && status >= 0 && status < 2
		bound := func(field string) []byte {
			bounds, _ := file[field].([]any)
			for _, b := range bounds {
				if b, _ := b.(map[string]any); number(b["key"]) == 4 {
					v, _ := b["value"].([]byte)
					return v
				}
			}
			return nil
		}
		f.Oldest, f.Newest = int64(f.Day)*day, int64(f.Day+1)*day-1
		if lower, upper := bound("lower_bounds"), bound("upper_bounds"); len(lower) == 8 && len(upper) == 8 {
			f.Oldest, f.Newest, f.Bounded = int64(binary.LittleEndian.Uint64(lower)), int64(binary.LittleEndian.Uint64(upper)), true
		}
		files = append(files, f)
	}
}

// Manifests are read as the library reads them, of every version of the format, under every codec, and with fields that nobody knows.
func TestManifestsOfOtherWriters(t *testing.T) {
	t.Parallel()
	zstd, err := ocf.ZstdCodec(nil, nil)
	require.NoError(t, err)
	parse := func(text string) avro.SchemaNode { return *avro.MustParse(text).Root() }
	changes := map[string]func(root *avro.SchemaNode, entry map[string]any){
		"as it is": nil,
		"fields of every type": func(root *avro.SchemaNode, entry map[string]any) {
			if entry == nil {
				one := parse(`{"type":"record","name":"one","fields":[
					{"name":"a","type":"null"},{"name":"b","type":"boolean"},{"name":"c","type":"float"},{"name":"d","type":"double"},
					{"name":"e","type":{"type":"fixed","name":"three","size":3}},{"name":"f","type":{"type":"enum","name":"color","symbols":["x","y"]}},
					{"name":"g","type":{"type":"map","values":["null","string","long"]}},{"name":"h","type":{"type":"array","items":{"type":"array","items":"int"}}},
					{"name":"i","type":{"type":"array","items":"null"}},{"name":"j","type":"three"},{"name":"k","type":{"type":"array","items":"three"}}]}`)
				root.Fields = append([]avro.SchemaField{{Name: "one", Type: one}}, root.Fields...)
				root.Fields = append(root.Fields, avro.SchemaField{Name: "after", Type: avro.SchemaNode{Type: "string"}})
				return
			}
			entry["after"] = "all"
			entry["one"] = map[string]any{
				"a": nil, "b": true, "c": float32(1), "d": 2.5, "e": [3]byte{1, 2, 3}, "f": "y", "g": map[string]any{"x": nil, "y": "z", "": int64(1) << 62},
				"h": []any{[]any{}, []any{int32(-1 << 31), int32(5)}}, "i": []any{nil, nil, nil}, "j": [3]byte{}, "k": []any{[3]byte{}, [3]byte{9, 9, 9}},
			}
		},
		"renamed partition fields in another order": func(root *avro.SchemaNode, entry map[string]any) {
			if entry == nil {
				for i := range root.Fields {
					for j := range root.Fields[i].Type.Fields {
						if f := &root.Fields[i].Type.Fields[j]; f.Name == "partition" {
							f.Type.Fields[0].Name = "kind"
							f.Type.Fields[0], f.Type.Fields[3] = f.Type.Fields[3], f.Type.Fields[0]
							f.Type.Fields = append(f.Type.Fields, avro.SchemaField{Name: "bucket", Type: avro.SchemaNode{Type: "int"}, Props: map[string]any{"field-id": 1004}})
						}
					}
				}
				return
			}
			part := entry["data_file"].(map[string]any)["partition"].(map[string]any)
			part["kind"], part["bucket"] = part["source_type"], int32(5)
		},
		"no statistics": func(root *avro.SchemaNode, _ map[string]any) {
			for i := range root.Fields {
				if f := &root.Fields[i]; f.Name == "data_file" {
					f.Type.Fields = f.Type.Fields[:len(f.Type.Fields):len(f.Type.Fields)]
					kept := f.Type.Fields[:0:0]
					for _, f := range f.Type.Fields {
						if !strings.Contains(f.Name, "bounds") && !strings.Contains(f.Name, "counts") {
							kept = append(kept, f)
						}
					}
					f.Type.Fields = kept
				}
			}
		},
	}
	for version := 1; version <= 3; version++ {
		content := manifest(t, version, 200)
		got, err := lake.ReadManifest(content, rawColumns)
		require.NoError(t, err)
		want, is, err := manifestOracle(content)
		require.NoError(t, err)
		require.True(t, is)
		require.Greater(t, len(want), 50)
		require.ElementsMatch(t, want, got, "version %d as iceberg-go writes it", version)
		for name, change := range changes {
			for _, codec := range []ocf.Codec{ocf.DeflateCodec(9), ocf.SnappyCodec(), ocf.NopCloser(zstd), nil} {
				content := recoded(t, content, codec, change)
				want, is, err := manifestOracle(content)
				require.NoError(t, err)
				require.True(t, is)
				got, err := lake.ReadManifest(content, rawColumns)
				require.NoError(t, err, "version %d, %s, %v", version, name, codec)
				require.ElementsMatch(t, want, got, "version %d, %s, %v", version, name, codec)
			}
		}
	}
}

// What is no manifest, or is cut, is refused with the reason.
func TestManifestsThatAreNone(t *testing.T) {
	t.Parallel()
	whole := recoded(t, manifest(t, 2, 5), nil, nil)
	for n := range len(whole) {
		files, err := lake.ReadManifest(whole[:n], rawColumns)
		if err == nil {
			require.True(t, bytes.HasSuffix(whole[:n], whole[len(whole)-16:]), "%d of %d bytes", n, len(whole))
			require.Less(t, len(files), 5)
		}
	}
	avroFile := func(schema string, blocks ...byte) []byte {
		out := append([]byte("Obj\x01"), 2)
		for _, s := range []string{"avro.schema", schema} {
			out = append(binary.AppendVarint(out, int64(len(s))), s...)
		}
		out = append(append(out, 0), make([]byte, 16)...)
		return append(out, blocks...)
	}
	const part = `{"name":"partition","type":{"type":"record","name":"p","fields":[]}}`
	entry := func(fields string) string {
		return `{"type":"record","name":"e","fields":[{"name":"status","type":"int"},{"name":"data_file","type":{"type":"record","name":"f","fields":[` + fields + `]}}]}`
	}
	const sizes = `{"name":"record_count","type":"long"},{"name":"file_size_in_bytes","type":"long"}`
	block := func(values int64, content ...byte) []byte {
		out := binary.AppendVarint(binary.AppendVarint(nil, values), int64(len(content)))
		return append(append(out, content...), make([]byte, 16)...)
	}
	huge := binary.AppendVarint(nil, math.MaxInt64)
	for want, content := range map[string][]byte{
		"it is no Avro file":                                                                []byte("PAR1"),
		"its header: unexpected EOF":                                                        []byte("Obj\x01\x02\x08avro"),
		"its schema has string where a record belongs":                                      avroFile(`"string"`),
		"its schema has no field data_file":                                                 avroFile(`{"type":"record","name":"e","fields":[{"name":"status","type":"int"}]}`),
		"field data_file: its schema has no field file_size_in_bytes":                       avroFile(entry(part + `,{"name":"record_count","type":"long"}`)),
		"field data_file: field record_count: its schema has string where a number belongs": avroFile(entry(`{"name":"record_count","type":"string"}`)),
		`field data_file: its schema has the type "f", which contains itself or is not known`: avroFile(entry(
			`{"name":"next","type":["null","f"]},` + part + `,` + sizes)),
		"an entry has status 3":                          avroFile(entry(part+`,`+sizes), block(1, 6, 2, 2)...),
		"it has a file whose partition it does not name": avroFile(entry(part+`,`+sizes), block(1, 2, 2, 2)...),
		"a block has 1 bytes beyond its entries":         avroFile(entry(part+`,`+sizes), block(1, 4, 2, 2, 0)...),
		"unexpected EOF":                                 avroFile(entry(part+`,`+sizes), block(math.MaxInt64, 4, 2, 2)...),
		"a block has -1 values":                          avroFile(entry(part+`,`+sizes), block(-1)...),
		"a block does not end with the file's mark":      avroFile(entry(part+`,`+sizes), append(block(1, 4, 2, 2)[:20], 1)...),
		"a union of 1 types has number 1":                avroFile(entry(`{"name":"u","type":["null"]},`+part+`,`+sizes), block(1, 4, 2, 2, 2)...),
		"a number has more than 64 bits":                 avroFile(entry(part+`,`+sizes), block(1, bytes.Repeat([]byte{0xff}, 20)...)...),
	} {
		_, err := lake.ReadManifest(content, rawColumns)
		require.EqualError(t, err, want)
	}
	// Numbers of items that nothing stands for: as many as there can be of those that take no bytes, and of others.
	for _, items := range []string{`"null"`, `"long"`, `"string"`, `{"type":"record","name":"r","fields":[]}`} {
		schema := entry(`{"name":"many","type":{"type":"array","items":` + items + `}},` + part + `,` + sizes)
		_, err := lake.ReadManifest(avroFile(schema, block(1, append(append([]byte{4}, huge...), 0, 2, 2)...)...), rawColumns)
		if strings.Contains(items, `"long"`) || strings.Contains(items, `"string"`) {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, items)
		} else {
			require.NoError(t, err, items)
		}
	}
}

// Whatever the bytes are, what is read of them is what the library reads. It is no fuzz target: instrumented, the library takes most of the time.
func TestManifestOfAnyBytes(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	both := 0
	for version := 1; version <= 3; version++ {
		for _, whole := range [][]byte{manifest(t, version, 3), recoded(t, manifest(t, version, 3), nil, nil), recoded(t, manifest(t, version, 40), ocf.SnappyCodec(), nil)} {
			for range 600 {
				content := bytes.Clone(whole)
				for range 1 + rng.IntN(3) {
					if len(content) == 0 {
						break
					}
					at := rng.IntN(len(content))
					switch rng.IntN(4) {
					case 0:
						content = content[:at+1]
					case 1:
						content = slices.Insert(content, at, byte(rng.Uint32()))
					case 2:
						content = slices.Delete(content, at, min(at+1+rng.IntN(8), len(content)))
					default:
						content[at] ^= 1 << rng.IntN(8)
					}
				}
				got, err := lake.ReadManifest(content, rawColumns)
				if err != nil {
					continue
				}
				want, is, err := manifestOracle(content)
				if err != nil || !is { // the library looks at what is passed over, too
					continue
				}
				both++
				require.ElementsMatch(t, want, got, "%x", content)
			}
		}
	}
	require.Greater(t, both, 100)
}
