package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"maps"
	"slices"

	"millrace/internal/spill"
	"millrace/sim"
)

// readSimulator reads what the simulator remembers, when the directory is a demo's.
func (a *auditor) readSimulator(context.Context) error {
	state, err := sim.ReadState(a.s.cfg.dir.join("demo.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	a.sim = &state
	return err
}

// simulator checks that the raw lake has what the simulator has sent, item by item, and the tables what that makes. A post whose answer
// was lost, in a crash or a broken connection, was sent again, and may be there as often: no oftener.
func (a *auditor) simulator(ctx context.Context) error {
	if a.sim == nil {
		return nil
	}
	if a.l.Forgotten > 0 {
		a.l.Unchecked = append(a.l.Unchecked, "what the simulator has sent, since 'millrace forget' has removed some of it")
		return nil
	}
	cfg, err := readDemoConfig(a.s.cfg.dir)
	if err != nil {
		return err
	}
	deliveries, err := a.sim.Deliveries(cfg.district())
	if err != nil {
		return err
	}
	sent, unsure := a.set(), int64(0)
	var unacknowledged []sim.Post
	for d := range deliveries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if d.Least == 0 {
			unacknowledged = append(unacknowledged, d.Post)
		}
		often := spill.Hash(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(d.Least)), uint64(d.Most))) //nolint:gosec // counts
		for _, item := range itemsOf(d.Post) {
			unsure += d.Most - d.Least
			if err := sent.Add(hashOf(item), often); err != nil {
				return err
			}
		}
	}
	known := a.sim.Ledger
	a.l.Sent = known.Items + known.BadItems + known.BrokenPayloads
	a.l.within("sent by the simulator = lake + rejects of its tenant", a.l.Sent, a.l.Sent+unsure, a.tenant)
	if err := a.sameItems(sent); err != nil {
		return err
	}
	late := sim.Count(unacknowledged).Distinct.ByTable
	for _, v := range a.whole {
		for _, name := range slices.Sorted(maps.Keys(known.Distinct.ByTable)) {
			n := known.Distinct.ByTable[name]
			a.l.within(v.label+name+": records = what the simulator's items make", n, n+late[name], v.records[name])
		}
	}
	return nil
}

// itemsOf are the bytes that the raw lake keeps of a post.
func itemsOf(p sim.Post) [][]byte {
	if p.Broken {
		return [][]byte{p.Body}
	}
	out := make([][]byte, len(p.Items))
	for i, it := range p.Items {
		out[i] = p.Body[it.From:it.To]
	}
	return out
}

// sameItems compares how often each item is in the raw lake with how often it was sent.
func (a *auditor) sameItems(sent *spill.Set) error {
	lacking, surplus := int64(0), int64(0)
	for g, err := range spill.Join(a.items, sent) {
		if err != nil {
			return err
		}
		there, least, most := int64(len(g.Values[0])), int64(0), int64(0)
		for _, often := range g.Values[1] {
			least += int64(binary.BigEndian.Uint64(often[:8])) //nolint:gosec // counts
			most += int64(binary.BigEndian.Uint64(often[8:]))  //nolint:gosec // counts
		}
		lacking += max(least-there, 0)
		surplus += max(there-most, 0)
	}
	a.l.equal("items of the simulator that the raw lake lacks", 0, lacking)
	a.l.equal("items of the simulator's tenant that the raw lake has oftener than they may have been sent", 0, surplus)
	return nil
}
