package plantest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/plan"
	"millrace/record"
)

// setup is what a case runs in.
type setup struct {
	*testing.T
	Runner
	clock *Clock
}

// say feeds one item per text.
func (s *setup) say(texts ...string) {
	items := make([]record.Item, len(texts))
	for i, text := range texts {
		items[i] = record.Item{Kind: record.Event, SourceType: "TOY", Bytes: []byte(text)}
	}
	s.Feed(items...)
}

// heard returns the values of all rows published so far, in order, without repetitions of one row's revision.
func (s *setup) heard() []string {
	var values []string
	seen := map[string]bool{}
	for _, r := range s.Rows() {
		id := fmt.Sprintf("%s#%d", r.ID, r.Rev)
		if seen[id] {
			continue
		}
		seen[id] = true
		cells := make([]plan.Cell, 1)
		require.NoError(s, plan.Schema{Columns: []plan.Column{{Type: plan.String}}}.Decode(r.Value, cells))
		values = append(values, string(cells[0].Bytes))
	}
	return values
}

type testCase struct {
	name string
	plan func() *plan.Plan
	run  func(s *setup)
}

// scripted is a plan of one keyed stage: each item is "key command", and f handles a key with its commands.
func scripted(listTags []uint8, f func(clock plan.Clock, k *plan.Key, say func(format string, args ...any))) func() *plan.Plan {
	return func() *plan.Plan {
		toy := Toy()
		return &plan.Plan{
			App: "scripted", Version: "1",
			Read: func(items []record.Item, out *plan.Output) {
				for _, it := range items {
					key, command, _ := strings.Cut(string(it.Bytes), " ")
					at, _ := strconv.ParseInt(strings.TrimPrefix(command, "at "), 10, 64)
					out.Send(0, plan.Element{Key: []byte(key), Tag: command[0], Time: at * 1e6, Payload: []byte(command)})
				}
			},
			ReadTo: []int{0},
			Stages: []plan.Stage{{Name: "script", ListTags: listTags, Keyed: func(clock plan.Clock, keys []*plan.Key, out *plan.Output) {
				for _, k := range keys {
					n := 0
					f(clock, k, func(format string, args ...any) {
						n++
						// An id that no other call of this key has: unless f keeps a value, it counts the calls.
						id := fmt.Sprintf("%s/%s/%s/%d", k.Key, k.Value, payloads(k), n)
						out.Row(toyRow(0, id, 1, true, fmt.Sprintf(format, args...)))
					})
					if k.SetValue == nil {
						calls, _ := strconv.Atoi(string(k.Value))
						k.SetValue = []byte(strconv.Itoa(calls + 1))
					}
				}
			}}},
			Tables: toy.Tables[:1],
		}
	}
}

func payloads(k *plan.Key) string {
	var all []string
	for _, in := range k.Inputs {
		all = append(all, string(in.Payload))
	}
	return strings.Join(all, ",")
}

func list(k *plan.Key) string {
	if k.List == nil {
		return "none"
	}
	var all []string
	for _, it := range k.List {
		all = append(all, string(it))
	}
	return strings.Join(all, ",")
}

var cases = []testCase{
	{
		name: "inputs of a key come in order, over restarts",
		plan: scripted([]uint8{'r'}, func(_ plan.Clock, k *plan.Key, say func(string, ...any)) {
			for _, in := range k.Inputs {
				if in.Tag != 'r' {
					k.Append = append(k.Append, in.Payload)
				}
			}
			if k.Inputs[len(k.Inputs)-1].Tag == 'r' {
				all := append(append([][]byte(nil), k.List...), k.Append...)
				say("%s: %s", k.Key, list(&plan.Key{List: all}))
			}
		}),
		run: func(s *setup) {
			s.say("a 1", "b 1", "a 2", "a 3")
			s.Restart()
			s.say("b 2", "a 4")
			s.Restart()
			s.say("a read")
			s.say("b read")
			require.Equal(s, []string{"a: 1,2,3,4", "b: 1,2"}, s.heard())
		},
	},
	{
		name: "the list is given for its tags alone, and can be replaced",
		plan: scripted([]uint8{'r', 'x'}, func(_ plan.Clock, k *plan.Key, say func(string, ...any)) {
			switch k.Inputs[0].Tag {
			case 'a':
				say("append sees %s", list(k))
				k.Append = [][]byte{k.Inputs[0].Payload}
			case 'r':
				say("read sees %s", list(k))
			case 'x':
				k.ReplaceList, k.Append = true, [][]byte{[]byte("only")}
			}
		}),
		run: func(s *setup) {
			for _, c := range []string{"k r", "k a1", "k a2", "k r", "k x", "k r", "k a3", "k r"} {
				s.say(c)
				s.Restart()
			}
			require.Equal(s, []string{
				"read sees none", "append sees none", "append sees none", "read sees a1,a2", "read sees only", "append sees none", "read sees only,a3",
			}, s.heard())
		},
	},
	{
		name: "items that expire leave the list by themselves",
		plan: scripted([]uint8{'r', 'x'}, func(clock plan.Clock, k *plan.Key, say func(string, ...any)) {
			in := k.Inputs[0]
			until := func(d time.Duration) int64 { return clock.Processing + d.Microseconds() }
			switch in.Tag {
			case 'a': // for ever
				k.Append = [][]byte{in.Payload}
			case 'h': // for an hour, and a minute
				k.AppendUntil = []plan.Expiring{{Item: in.Payload, Until: until(time.Hour)}, {Item: []byte("brief"), Until: until(time.Minute)}}
			case 'p': // expired already
				k.AppendUntil = []plan.Expiring{{Item: []byte("never"), Until: clock.Processing}}
			case 'r':
				say("%s", list(k))
			case 'x':
				k.ReplaceList, k.AppendUntil = true, []plan.Expiring{{Item: []byte("only"), Until: until(time.Hour)}}
			}
		}),
		run: func(s *setup) {
			for _, c := range []string{"k h1", "k a1", "k p", "j h2", "k r", "", "k r", "k x", "k r", "j r", "", "k r", "j r"} {
				if c == "" {
					s.clock.Move(30 * time.Minute)
					s.Restart()
					continue
				}
				s.say(c)
			}
			s.clock.Move(time.Hour)
			s.say("k r")
			require.Equal(s, []string{"a1,brief,h1", "a1,h1", "only", "h2", "only", "h2", "none"}, s.heard())
		},
	},
	{
		name: "an empty value deletes",
		plan: scripted(nil, func(_ plan.Clock, k *plan.Key, say func(string, ...any)) {
			switch k.Inputs[0].Tag {
			case 's':
				k.SetValue = []byte("7")
			case 'd':
				k.SetValue = []byte{}
			default:
				say("value %q, absent %t", k.Value, k.Value == nil)
				k.SetValue = append([]byte{}, k.Value...)
			}
		}),
		run: func(s *setup) {
			for _, c := range []string{"k get 1", "k set", "k get 2", "k del", "k get 3"} {
				s.say(c)
			}
			require.Equal(s, []string{`value "", absent true`, `value "7", absent false`, `value "", absent true`}, s.heard())
		},
	},
	{
		name: "processing-time timers fire once, in order, without input, and can be cleared",
		plan: scripted(nil, func(clock plan.Clock, k *plan.Key, say func(string, ...any)) {
			base := NewClock().Now().UnixMicro()
			timer := func(minutes string) plan.Timer {
				m, _ := strconv.ParseInt(minutes, 10, 64)
				return plan.Timer{Domain: plan.ProcessingTime, At: base + m*time.Minute.Microseconds()}
			}
			for _, in := range k.Inputs {
				switch minutes := string(in.Payload[1:]); in.Tag {
				case 's':
					k.SetTimers = append(k.SetTimers, timer(minutes), timer(minutes))
				case 'c':
					k.ClearTimers = append(k.ClearTimers, timer(minutes))
				}
			}
			for _, t := range k.Timers {
				say("%s at %d", k.Key, (t.At-base)/time.Minute.Microseconds())
			}
		}),
		run: func(s *setup) {
			s.say("a s10", "a s20", "b s15", "b s25", "a s30")
			s.say("b c15")
			s.say("a s20")
			s.Restart()
			require.Empty(s, s.heard())
			s.clock.Move(12 * time.Minute)
			s.Wake()
			require.Equal(s, []string{"a at 10"}, s.heard())
			s.Restart()
			s.clock.Move(10 * time.Minute)
			s.Wake()
			require.Equal(s, []string{"a at 10", "a at 20"}, s.heard())
			s.clock.Move(time.Hour)
			s.Wake()
			require.ElementsMatch(s, []string{"a at 10", "a at 20", "a at 30", "b at 25"}, s.heard())
			s.clock.Move(time.Hour)
			s.Wake()
			require.Len(s, s.heard(), 4)
		},
	},
	{
		name: "event-time timers follow the watermark",
		plan: scripted(nil, func(_ plan.Clock, k *plan.Key, say func(string, ...any)) {
			for _, in := range k.Inputs {
				if in.Tag == 'a' { // "at N": a timer ten minutes after the event
					k.SetTimers = append(k.SetTimers, plan.Timer{Domain: plan.EventTime, At: in.Time + 600*1e6})
				}
			}
			for _, t := range k.Timers {
				say("%s at %d", k.Key, t.At/1e6)
			}
		}),
		run: func(s *setup) {
			s.say("a at 1000")
			s.say("b at 1600") // watermark 1540, less than 1600
			require.Empty(s, s.heard())
			s.Restart()
			s.say("c at 1661") // watermark 1601
			s.say("d at 900")  // late, does not move it back
			heard := s.heard()
			require.Equal(s, "a at 1600", heard[0])
			require.Subset(s, []string{"a at 1600", "d at 1500"}, heard) // d's timer is due when it is set: any later epoch may fire it
			s.say("e at 5000")
			s.say("e at 5000")
			require.ElementsMatch(s, []string{"a at 1600", "d at 1500", "b at 2200", "c at 2261"}, s.heard())
		},
	},
	{
		name: "the clock does not go back over restarts",
		plan: scripted(nil, func(clock plan.Clock, k *plan.Key, say func(string, ...any)) {
			say("%d", (clock.Processing-NewClock().Now().UnixMicro())/1e6)
		}),
		run: func(s *setup) {
			s.clock.Move(time.Minute)
			s.say("k x")
			s.clock.Move(-time.Minute)
			s.say("k x")
			s.Restart()
			s.say("k x")
			require.Equal(s, []string{"60", "60", "60"}, s.heard())
		},
	},
	{
		name: "of a row's revisions the highest counts",
		plan: func() *plan.Plan {
			p := Toy()
			p.Stages, p.ReadTo, p.Counters = nil, nil, nil
			p.Read = func(items []record.Item, out *plan.Output) {
				for _, it := range items {
					rev, err := strconv.ParseUint(string(it.Bytes), 10, 64)
					if err != nil {
						panic(err)
					}
					out.Row(toyRow(0, "r", rev, rev == 1, string(it.Bytes)))
				}
			}
			return p
		},
		run: func(s *setup) {
			s.say("1", "3", "2")
			s.say("2", "5", "4")
			got, err := Tables(Toy(), s.Rows())
			require.NoError(s, err)
			require.Equal(s, map[string]string{"joined/r": "5"}, got)
		},
	},
}
