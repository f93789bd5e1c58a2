package etl

import (
	"fmt"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"

	"millrace/plan"
	"millrace/record"
)

const latestPrefix = "latest/"

// identify completes a plan with what its states and tables were called before, and lets records of earlier versions find theirs.
func (p *program) identify(out *plan.Plan) error {
	renamed := map[string]string{}
	for old, name := range p.app.Renamed {
		renamed[old] = name
		t, ok := p.byName[name]
		if !ok {
			continue
		}
		if _, taken := p.byName[old]; taken {
			continue // Check refuses it
		}
		p.byName[old] = t // records on their way have the old name
		if p.isLatest(t) {
			renamed[latestPrefix+old] = latestPrefix + name
		}
		for _, c := range p.counterNames {
			if rest, ok := strings.CutPrefix(c, "table."+name+"."); ok {
				renamed["table."+old+"."+rest] = c
			}
		}
	}
	if len(renamed) > 0 {
		out.Renamed = renamed
	}
	out.Removed = slices.Clone(p.app.Removed)

	p.stageByID = map[uint32]int{}
	add := func(name string, stage int) error {
		id := stageID(name)
		if other, taken := p.stageByID[id]; taken && other != stage {
			return fmt.Errorf("the states %s and %s have names with the same hash; reorder the conditions of one of the joins", out.Stages[other].Name, name)
		}
		p.stageByID[id] = stage
		return nil
	}
	for i, s := range out.Stages {
		p.stageIDs = append(p.stageIDs, stageID(s.Name))
		if err := add(s.Name, i); err != nil {
			return err
		}
	}
	for old, name := range renamed {
		if i := slices.IndexFunc(out.Stages, func(s plan.Stage) bool { return s.Name == name }); i >= 0 {
			if err := add(old, i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *program) isLatest(t *transformer) bool {
	return slices.ContainsFunc(p.latest, func(l *latestState) bool { return l.t == t })
}

// stageID is what the state says a stage by: it holds as long as the stage's name does.
func stageID(name string) uint32 { return uint32(xxh3.HashString(name)) } //nolint:gosec // half of a hash is a hash

// key says what the join's state is kept by. Spellings of one path are one key.
func (j Join) key() string {
	paths := make([]string, len(j.conditions))
	for i, c := range j.conditions {
		paths[i] = strings.ReplaceAll(c.entity.canonical(), "entity.", "")
	}
	return j.entityType + " by " + strings.Join(paths, " and ")
}

// describe is the join as versions of an app are compared by.
func (j Join) describe(stage int) plan.Join {
	out := plan.Join{Field: j.field, Stage: stage, WaitFor: j.waitFor, CorrectFor: j.correctFor, Else: j.otherwise.String()}
	for _, c := range j.conditions {
		out.Record = append(out.Record, c.record.canonical())
	}
	return out
}

// String returns the policy's name.
func (p Policy) String() string {
	switch p {
	case EmitNulls:
		return "EmitNulls"
	case DeadLetter:
		return "DeadLetter"
	case Drop:
		return "Drop"
	}
	return fmt.Sprintf("Policy(%d)", p)
}

// canonical spells steps that are one in one way. Quoted steps may hold what looks like one: they stay.
func (p Path) canonical() string {
	alts := splitUnquoted(string(p), '|')
	for i, a := range alts {
		steps := splitUnquoted(a, '.')
		for j, s := range steps {
			switch s {
			case "@id":
				steps[j] = "id"
			case "@type":
				steps[j] = "type"
			}
		}
		alts[i] = strings.Join(steps, ".")
	}
	return strings.Join(alts, "|")
}

// String says in words what the source reads.
func (s Source) String() string {
	what := "events"
	if s.kind == record.Entity {
		what = "entities"
	}
	text := what + " " + strings.Join(s.types, ", ")
	if len(s.actions) > 0 {
		text += " with the action " + strings.Join(s.actions, " or ")
	}
	return text
}
