package sim

import (
	"cmp"
	"slices"
)

// post is one HTTP request, before it has bytes.
type post struct {
	at          int64 // its turn
	due         int64 // from when on Finish sends it before its turn
	sendTime    int64 // in the envelope; earlier than at when it was delayed
	first, n    int32 // its items: order[first : first+n]
	serial      int32 // in the day; a redelivered post has its original's
	sensor      int16
	flags       flags
	sent        bool // Finish has sent it
	hasEntities bool
}

// addPosts makes each sensor fill envelopes from its queue, as sensors do: until there are enough items or the first has
// waited long enough. Then it adds what goes wrong on the way.
func (p *dayPlan) addPosts() {
	p.r = newRNG(p.w.cfg.Seed, forEnvelopes, uint64(p.day))
	for sensor, queue := range p.queues {
		slices.SortFunc(queue, func(a, b queued) int {
			return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.item, b.item))
		})
		for len(queue) > 0 {
			size, wait := p.r.between(1, 14), p.r.millis(5, 40)
			if sensor == p.w.sis() {
				size = p.r.between(5, 40)
			}
			n := 1
			for n < len(queue) && n < size && queue[n].at-queue[0].at <= wait {
				n++
			}
			p.addPost(sensor, queue[:n])
			queue = queue[n:]
		}
	}
	p.queues = nil
	slices.SortFunc(p.posts, func(a, b post) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.serial, b.serial), cmp.Compare(a.flags, b.flags))
	})
}

func (p *dayPlan) addPost(sensor int, batch []queued) {
	w, r, irr := p.w, &p.r, &p.w.irr
	// Nothing may wait beyond the end of the day: the next day is planned without this one.
	last := p.dayStart() + dayMillis - 60_000
	sent := batch[len(batch)-1].at + int64(r.between(50, 900))
	o := post{sendTime: sent, at: sent, due: sent, first: int32(len(p.order)), serial: int32(len(p.posts)), sensor: int16(sensor)}
	session := int32(-1)
	for _, q := range batch {
		it := &p.items[q.item]
		p.order = append(p.order, q.item)
		o.n++
		if it.kind.entity() {
			o.hasEntities = true
			o.due = min(o.due, it.at)
		} else {
			session = it.owner
		}
		if session >= 0 && r.chance(irr.BadItem) {
			p.order = append(p.order, int32(len(p.items)))
			p.items = append(p.items, item{
				at: it.at, owner: session, index: int32(r.intn(badKinds)), kind: bad, style: w.sensors[sensor].dialect,
			})
			o.n++
		}
	}
	if r.chance(irr.Gzip) {
		o.flags |= isGzip
	}
	switch late := r.float(); {
	case o.hasEntities: // entities have their own lateness
	case late < irr.VeryLate:
		o.at += r.millis(3600, 4*3600)
		o.flags |= isVeryLate
	case late < irr.VeryLate+irr.Delayed:
		o.at += r.millis(30, 8*60)
		o.flags |= isDelayed
	}
	o.at = min(o.at, last)
	p.posts = append(p.posts, o)
	if r.chance(irr.Redelivered) {
		again := o
		again.at = min(o.at+r.millis(2, 20*60), last+30_000)
		again.due, again.hasEntities = again.at, false
		again.flags = o.flags&isGzip | isRedelivered
		p.posts = append(p.posts, again)
	}
	if r.chance(irr.Broken) {
		p.posts = append(p.posts, post{
			at: sent + 1, due: sent + 1, sendTime: sent + 1, first: o.first, serial: int32(len(p.posts)), sensor: int16(sensor),
			flags: isBroken,
		})
	}
}
