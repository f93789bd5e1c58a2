package plan_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"millrace/plan"
	"millrace/record"
)

// TestCompare runs the scripts in testdata/compare. Commands:
//
//	plan NAME                    define a plan, a line each for what it has:
//	  app NAME VERSION
//	  reads SOURCE-TYPE…
//	  stage NAME [key=…] [format=…]      stateless NAME
//	  table NAME COLUMN:TYPE[?]… [reads=…] [day=COLUMN]
//	  join TABLE FIELD STAGE PATH… [wait=…] [correct=…] [else=…]
//	  counter NAME               renamed OLD NEW               removed NAME
//	compare WAS NOW [empty=STAGE]
//	check NAME                   what Check says of it
//
// The plans reach Compare as they reach it from a state: as JSON.
func TestCompare(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/compare", func(t *testing.T, path string) {
		plans := map[string]*plan.Plan{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			arg := func(i int) *plan.Plan {
				p, ok := plans[d.CmdArgs[i].Key]
				require.True(t, ok, "%s: no plan %s", d.Pos, d.CmdArgs[i].Key)
				return p
			}
			switch d.Cmd {
			case "plan":
				plans[d.CmdArgs[0].Key] = parsePlan(t, d.Input)
				return ""
			case "check":
				if err := arg(0).Check(); err != nil {
					return err.Error()
				}
				return "good"
			case "compare":
				was, now := stored(t, arg(0)), stored(t, arg(1))
				empty := ""
				if a, ok := d.Arg("empty"); ok {
					empty = a.Vals[0]
				}
				var b strings.Builder
				for _, c := range plan.Compare(was, now, func(stage string) bool { return stage != empty }).Changes {
					verdict := "allowed"
					if c.Refused {
						verdict = "REFUSED"
					}
					fmt.Fprintf(&b, "%s %s\n  %s\n", verdict, c.What, c.Meaning)
				}
				if b.Len() == 0 {
					return "no change"
				}
				return b.String()
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

func stored(t *testing.T, p *plan.Plan) (d plan.Description) {
	text, err := json.Marshal(p.Describe())
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &d))
	again, err := json.Marshal(d)
	require.NoError(t, err)
	require.Equal(t, string(text), string(again))
	return d
}

func parsePlan(t *testing.T, text string) *plan.Plan {
	p := &plan.Plan{App: "toy", Version: "1", Read: func([]record.Item, *plan.Output) {}}
	stage := func(name string) int {
		return slices.IndexFunc(p.Stages, func(s plan.Stage) bool { return s.Name == name })
	}
	types := map[string]plan.Type{
		"string": plan.String, "bool": plan.Bool, "long": plan.Long, "double": plan.Double,
		"timestamp": plan.Timestamp, "bytes": plan.Bytes, "strings": plan.Strings,
	}
	for line := range strings.Lines(text) {
		var words []string
		options := map[string]string{}
		for _, w := range strings.Fields(line) {
			if k, v, ok := strings.Cut(w, "="); ok {
				options[k] = strings.ReplaceAll(v, "_", " ")
			} else {
				words = append(words, w)
			}
		}
		span := func(key string) time.Duration {
			if options[key] == "" {
				return time.Hour
			}
			d, err := time.ParseDuration(options[key])
			require.NoError(t, err)
			return d
		}
		switch rest := words[1:]; words[0] {
		case "app":
			p.App, p.Version = rest[0], rest[1]
		case "reads":
			p.SourceTypes = rest
		case "stage":
			p.Stages = append(p.Stages, plan.Stage{
				Name: rest[0], Key: options["key"], Format: options["format"], Keyed: func(plan.Clock, []*plan.Key, *plan.Output) {},
			})
		case "stateless":
			p.Stages = append(p.Stages, plan.Stage{Name: rest[0], Stateless: func([]plan.Element, *plan.Output) {}})
		case "table":
			tbl := plan.Table{Name: rest[0], Reads: options["reads"], Schema: plan.Schema{Name: "Row"}}
			for _, c := range rest[1:] {
				name, typ, _ := strings.Cut(c, ":")
				typ, nullable := strings.CutSuffix(typ, "?")
				require.Contains(t, types, typ)
				tbl.Schema.Columns = append(tbl.Schema.Columns, plan.Column{Name: name, Type: types[typ], Nullable: nullable})
			}
			if d := options["day"]; d != "" {
				tbl.Partition = []plan.PartitionField{{Column: d, Transform: plan.Day}}
			}
			p.Tables = append(p.Tables, tbl)
		case "join":
			i, ok := p.Table(rest[0])
			require.True(t, ok, "join: no table %s", rest[0])
			p.Tables[i].Joins = append(p.Tables[i].Joins, plan.Join{
				Field: rest[1], Stage: stage(rest[2]), Record: rest[3:],
				WaitFor: span("wait"), CorrectFor: span("correct"), Else: options["else"],
			})
		case "counter":
			p.Counters = append(p.Counters, rest[0])
		case "renamed":
			if p.Renamed == nil {
				p.Renamed = map[string]string{}
			}
			p.Renamed[rest[0]] = rest[1]
		case "removed":
			p.Removed = append(p.Removed, rest[0])
		default:
			t.Fatalf("unknown line %q", line)
		}
	}
	return p
}

func TestConversion(t *testing.T) {
	t.Parallel()
	col := func(name string, typ plan.Type, nullable bool) plan.Column {
		return plan.Column{Name: name, Type: typ, Nullable: nullable}
	}
	was := plan.Schema{Name: "Row", Columns: []plan.Column{col("a", plan.String, false), col("b", plan.Long, true), col("c", plan.Strings, false)}}
	is := plan.Schema{Name: "Row", Columns: []plan.Column{
		col("new", plan.Double, true), col("c", plan.Strings, false), col("a", plan.String, true), col("b", plan.Long, true),
	}}
	same, err := plan.NewConversion(was, was)
	require.NoError(t, err)
	require.Nil(t, same)

	c, err := plan.NewConversion(was, is)
	require.NoError(t, err)
	value, err := was.Append(nil, []plan.Cell{{Bytes: []byte("x")}, {Null: true}, {List: [][]byte{[]byte("y"), []byte("z")}}})
	require.NoError(t, err)
	value, err = c.Append(nil, value)
	require.NoError(t, err)
	cells := make([]plan.Cell, 4)
	require.NoError(t, is.Decode(value, cells))
	require.Equal(t, []plan.Cell{{Null: true}, {List: [][]byte{[]byte("y"), []byte("z")}}, {Bytes: []byte("x")}, {Null: true}}, cells)
	_, err = c.Append(nil, value[:2])
	require.Error(t, err)

	fewer := plan.Schema{Name: "Row", Columns: was.Columns[:1]}
	c, err = plan.NewConversion(was, fewer)
	require.NoError(t, err)
	value, err = was.Append(nil, []plan.Cell{{Bytes: []byte("x")}, {Int: 1}, {}})
	require.NoError(t, err)
	value, err = c.Append(nil, value)
	require.NoError(t, err)
	require.Equal(t, "\x02x", string(value))

	for want, to := range map[string][]plan.Column{
		"column d of Row is new and not nullable": append(slices.Clone(was.Columns), col("d", plan.Long, false)),
		"column b of Row has changed its type":    {was.Columns[0], col("b", plan.Long, false), was.Columns[2]},
		"column a of Row has changed its type":    {col("a", plan.Bytes, false), was.Columns[1], was.Columns[2]},
	} {
		_, err := plan.NewConversion(was, plan.Schema{Name: "Row", Columns: to})
		require.EqualError(t, err, want)
	}
}

func TestParseAvro(t *testing.T) {
	t.Parallel()
	got, err := plan.ParseAvro([]byte(everyType.Avro()))
	require.NoError(t, err)
	require.Equal(t, everyType, got)
	_, err = plan.ParseAvro([]byte(`{"name":"X","fields":[{"name":"a","type":"float"}]}`))
	require.EqualError(t, err, `read Avro schema of X: column a has the unknown type "float"`)
}

// A sketch is described as what it is a sketch of.
func TestSketch(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(parsePlan(t, `app a 1.0.0
reads EDGENUITY_LMS
stage course key=entity format=2
stateless map
table quiz id:string score:double? at:timestamp day=at
join quiz course course event.object.@id wait=24h correct=1h else=drop
counter table.quiz.rows
removed old`).Describe())
	require.NoError(t, err)
	var d plan.Description
	require.NoError(t, json.Unmarshal(text, &d))
	sketch, err := d.Sketch()
	require.NoError(t, err)
	again, err := json.Marshal(sketch.Describe())
	require.NoError(t, err)
	require.JSONEq(t, string(text), string(again))
	require.Panics(t, func() { sketch.Stages[0].Keyed(plan.Clock{}, nil, nil) })

	d.Stages[0].To = []string{"nowhere"}
	_, err = d.Sketch()
	require.ErrorContains(t, err, `there is no stage "nowhere"`)
}
