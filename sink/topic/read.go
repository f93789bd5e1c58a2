package topic

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/avro"

	"millrace/eventlog"
)

// Told is a committed message of a table's topic, as one who reads the topic understands it. Of the messages of an id the last one is
// the truth.
type Told struct {
	ID      string
	Deleted bool

	// Row is the row by column name, plan.MetaColumns included. A value is a string, int64, float64, bool, time.Time in UTC, []byte,
	// []string, or nil. It is nil for a deleted row, and for a message that no Sink has written, of which Err says why.
	Row map[string]any
	Err error

	// From is what made the message: lineage and epoch, and where a rewind went that repeated it. An id has one message from each.
	From string
}

// Read yields the committed messages of a table's topic, in order for each id. After an error it ends.
func Read(ctx context.Context, log *eventlog.Log, namespace, table string) iter.Seq2[Told, error] {
	return func(yield func(Told, error) bool) {
		schemas, err := readSchemas(ctx, log, namespace)
		if err != nil {
			yield(Told{}, err)
			return
		}
		name := Topic(namespace, table)
		partitions, err := log.PartitionsOf(ctx, name)
		if err != nil {
			yield(Told{}, err)
			return
		}
		for _, p := range partitions {
			for m, err := range log.Messages(ctx, name, p) {
				if err != nil {
					yield(Told{}, err)
					return
				}
				if !yield(told(&m, schemas), nil) {
					return
				}
			}
		}
	}
}

// readSchemas reads what the values of a namespace's topics are written with, by fingerprint.
func readSchemas(ctx context.Context, log *eventlog.Log, namespace string) (map[string]*avro.Schema, error) {
	schemas := map[string]*avro.Schema{}
	for m, err := range log.Messages(ctx, ControlTopic(namespace), 0) {
		if err != nil {
			return nil, err
		}
		fingerprint, ok := strings.CutPrefix(string(m.Key), schemaKey)
		if !ok {
			continue
		}
		if schemas[fingerprint], err = avro.Parse(string(m.Value)); err != nil {
			return nil, fmt.Errorf("schema %s of topic %s: %w", fingerprint, ControlTopic(namespace), err)
		}
	}
	return schemas, nil
}

func told(m *eventlog.Message, schemas map[string]*avro.Schema) Told {
	t := Told{
		ID: string(m.Key), Deleted: m.Value == nil,
		From: strings.Join([]string{m.Header(headerLineage), m.Header(headerEpoch), m.Header(headerRewind)}, " "),
	}
	if !t.Deleted {
		t.Row, t.Err = readRow(m, schemas)
	}
	return t
}

func readRow(m *eventlog.Message, schemas map[string]*avro.Schema) (map[string]any, error) {
	head := len(schema{}.append(nil))
	if len(m.Value) < head {
		return nil, errors.New("its value is too short")
	}
	s := schemas[hex.EncodeToString(m.Value[len(prefix):head])]
	if s == nil {
		return nil, fmt.Errorf("the schema of its value, %x, is not known", m.Value[:head])
	}
	row := map[string]any{}
	if rest, err := s.DecodeSingleObject(m.Value, &row); err != nil || len(rest) > 0 {
		return nil, errors.Join(fmt.Errorf("its value does not fit its schema, or has %d bytes too many", len(rest)), err)
	}
	for name, v := range row {
		switch v := v.(type) {
		case time.Time:
			row[name] = v.UTC()
		case []any:
			list := make([]string, len(v))
			for i := range v {
				list[i], _ = v[i].(string) // an array's schema has strings alone
			}
			row[name] = list
		}
	}
	return row, readMeta(m, row)
}

// readMeta reads the columns that are headers.
func readMeta(m *eventlog.Message, row map[string]any) (err error) {
	row["_id"] = string(m.Key)
	row["_lineage"] = m.Header(headerLineage)
	row["_app_version"] = m.Header(headerAppVersion)
	row["account_id"] = m.Header(headerAccount)
	row["env_id"] = m.Header(headerEnv)
	sources := []string{}
	for _, h := range m.Headers {
		if h.Key == headerSource {
			sources = append(sources, string(h.Value))
		}
	}
	row["_sources"] = sources
	for column, header := range map[string]string{"_rev": headerRev, "_epoch": headerEpoch} {
		n, e := strconv.ParseInt(m.Header(header), 10, 64)
		row[column], err = n, errors.Join(err, e)
	}
	at, e := time.Parse(time.RFC3339Nano, m.Header(headerEventTime))
	row["_event_time"] = at.UTC()
	return errors.Join(err, e)
}
