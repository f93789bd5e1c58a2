package topic

import (
	"context"
	"fmt"

	"millrace/eventlog"
	"millrace/sink"
)

// rewind makes every partition end in what is true at the start of the sink's lineage.
//
// A partition whose last message is in the lineage's history has nothing to take back: whatever lineage wrote that message had
// taken back what came before. Otherwise the last message that is in the history is what a row was; the row gets it once more, or
// a tombstone when there is none. All of a partition comes in one transaction, so that the partition's last message goes on
// telling how far it is.
func (s *Sink) rewind(ctx context.Context) error {
	var messages []eventlog.Message
	for _, t := range s.tables {
		if t == nil {
			continue
		}
		for partition, tail := range t.tails {
			if s.holds(tail) {
				continue
			}
			undone, err := s.undone(ctx, t, partition)
			if err != nil {
				return err
			}
			messages = append(messages, undone...)
		}
	}
	if len(messages) == 0 {
		return nil
	}
	s.cfg.Logger.Info("taking back what a lineage that was left has written to table topics", "lineage", s.lineage.ID, "messages", len(messages))
	if err := s.commit(ctx, messages); err != nil {
		return err
	}
	for _, m := range messages {
		s.table(m.Topic).tails[m.Partition] = placeOf(&m)
	}
	return nil
}

// holds reports whether a message is part of the history of the sink's lineage: made by an epoch of it, or by the rewind with
// which one of its lineages began, which has the epoch before that lineage's first.
func (s *Sink) holds(p sink.Point) bool {
	from := uint64(0)
	for _, a := range s.lineage.Ancestors {
		if p.Lineage == a.Lineage && from <= p.Epoch && p.Epoch <= a.Epoch {
			return true
		}
		from = a.Epoch
	}
	return p.Lineage == s.lineage.ID && from <= p.Epoch
}

// undone returns the messages that take back what is not in the lineage's history.
func (s *Sink) undone(ctx context.Context, t *table, partition int32) ([]eventlog.Message, error) {
	type change struct {
		was   *eventlog.Message // last one in the history
		taken *eventlog.Message // last one, if it is not
	}
	changes := map[string]*change{}
	var order []string
	read := func(fn func(m eventlog.Message, held bool)) error {
		for m, err := range s.cfg.Log.Messages(ctx, t.topic, partition) {
			if err != nil {
				return err
			}
			fn(m, s.holds(placeOf(&m)))
		}
		return nil
	}
	// Twice: only the rows that a lineage that was left has touched are kept in memory.
	err := read(func(m eventlog.Message, held bool) {
		if key := string(m.Key); !held && changes[key] == nil {
			changes[key] = &change{}
			order = append(order, key)
		}
	})
	if err != nil {
		return nil, err
	}
	err = read(func(m eventlog.Message, held bool) {
		switch c := changes[string(m.Key)]; {
		case c == nil:
		case held:
			c.was, c.taken = &m, nil
		default:
			c.taken = &m
		}
	})
	if err != nil {
		return nil, err
	}
	var out []eventlog.Message
	for _, key := range order {
		if c := changes[key]; c.taken != nil {
			out = append(out, s.restored(c.taken, c.was))
		}
	}
	return out, nil
}

// restored is the message that follows one that is taken back: the one that was before it, or a tombstone.
func (s *Sink) restored(taken, was *eventlog.Message) eventlog.Message {
	start, _ := s.lineage.Start()
	m := eventlog.Message{Topic: taken.Topic, Partition: taken.Partition, Key: taken.Key}
	made := taken
	if was != nil {
		m.Value, made = was.Value, was
	}
	for _, h := range made.Headers {
		if h.Key != headerRewind {
			m.Headers = append(m.Headers, h)
		}
	}
	m.Headers = append(m.Headers, eventlog.Header{Key: headerRewind, Value: fmt.Appendf(nil, "%s %d", s.lineage.ID, start.Epoch)})
	return m
}
