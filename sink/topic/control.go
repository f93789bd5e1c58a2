package topic

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"

	"millrace/eventlog"
	"millrace/sink"
)

// The control topic of a namespace has messages with these keys:
//
//	schema <fingerprint>   an Avro schema, as JSON
//	writer <instance>      who took the place of writing the instance's rows, last one counts
const (
	schemaKey = "schema "
	writerKey = "writer "
)

// writerRecord is who writes an instance's rows.
type writerRecord struct {
	Lineage string `json:"lineage"`
	Token   uint64 `json:"token"`
	Nonce   string `json:"nonce"` // another at each taking of the place
}

// take makes this sink the only writer of the instance's rows, finds what the topics hold, and takes back what is not in the
// history of the sink's lineage.
func (s *Sink) take(ctx context.Context) error {
	if err := s.writer.Take(ctx); err != nil {
		return err
	}
	known, last, err := s.control(ctx)
	if err != nil {
		return err
	}
	// Had the place a later writer, it sees that it was pushed aside without need, and takes it back.
	if err := s.refused(last); err != nil {
		return err
	}
	s.nonce = rand.Text()
	var messages []eventlog.Message
	for _, t := range s.tables {
		if t == nil {
			continue
		}
		if key := schemaKey + t.schema.hex(); !known[key] {
			known[key] = true
			messages = append(messages, eventlog.Message{Topic: ControlTopic(s.cfg.Namespace), Key: []byte(key), Value: []byte(t.schema.text)})
		}
	}
	value, err := json.Marshal(writerRecord{Lineage: s.lineage.ID, Token: s.lineage.Token, Nonce: s.nonce})
	if err != nil {
		return err
	}
	messages = append(messages, eventlog.Message{Topic: ControlTopic(s.cfg.Namespace), Key: []byte(writerKey + s.cfg.Instance), Value: value})
	if err := s.writer.Commit(ctx, messages); err != nil {
		return err
	}
	tails, err := s.writer.Last(ctx, s.topics...)
	if err != nil {
		return err
	}
	for _, t := range s.tables {
		if t == nil {
			continue
		}
		t.tails = map[int32]sink.Point{}
		for partition, m := range tails[t.topic] {
			t.tails[partition] = placeOf(&m)
		}
	}
	if err := s.rewind(ctx); err != nil {
		return err
	}
	s.taken = true
	return nil
}

// control reads the control topic: which keys it has, and who took the instance's place last, with token 0 when nobody did.
func (s *Sink) control(ctx context.Context) (known map[string]bool, last writerRecord, err error) {
	known = map[string]bool{}
	for m, err := range s.cfg.Log.Messages(ctx, ControlTopic(s.cfg.Namespace), 0) {
		if err != nil {
			return nil, last, err
		}
		known[string(m.Key)] = true
		if string(m.Key) != writerKey+s.cfg.Instance {
			continue
		}
		if err := json.Unmarshal(m.Value, &last); err != nil {
			return nil, last, fmt.Errorf("read who writes the tables of %s: %w", s.cfg.Instance, err)
		}
	}
	return known, last, nil
}
