package lake

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/twmb/avro"
	"github.com/twmb/avro/ocf"
)

// manifestReader reads the entries of a manifest as far as an extent needs them. iceberg-go's readers make all of an entry, which costs
// several times as much: too much for a question about thousands of files.
type manifestReader struct {
	avro       *ocf.Reader
	partitions map[int]string // names of the partition fields by id
	entry      manifestEntry
}

// manifestEntry is what is read of an entry, under Iceberg's names.
type manifestEntry struct {
	Status int32 `avro:"status"`
	File   struct {
		Partition map[string]any  `avro:"partition"`
		Records   int64           `avro:"record_count"`
		Bytes     int64           `avro:"file_size_in_bytes"`
		Lower     []manifestBound `avro:"lower_bounds"`
		Upper     []manifestBound `avro:"upper_bounds"`
	} `avro:"data_file"`
}

type manifestBound struct {
	Column int32  `avro:"key"`
	Value  []byte `avro:"value"`
}

const statusDeleted = 2 // of an entry: the file is gone

var readOfEntry, readOfFile = []string{"status", "data_file"}, []string{"partition", "record_count", "file_size_in_bytes", "lower_bounds", "upper_bounds"}

// manifestSchemas makes what is read out of what manifests hold. Those of a table are alike, so it keeps the last one.
type manifestSchemas struct {
	mu      sync.Mutex
	written string
	read    *avro.Schema
}

func (s *manifestSchemas) of(written *avro.Schema) (*avro.Schema, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read != nil && s.written == written.String() {
		return s.read, nil
	}
	root := *written.Root()
	root.Fields = only(root.Fields, readOfEntry)
	file := slices.IndexFunc(root.Fields, func(f avro.SchemaField) bool { return f.Name == "data_file" })
	if file < 0 {
		return nil, errors.New("no entry of it names a file")
	}
	root.Fields[file].Type.Fields = only(root.Fields[file].Type.Fields, readOfFile)
	read, err := root.Schema()
	if err != nil {
		return nil, err
	}
	s.written, s.read = written.String(), read
	return read, nil
}

func only(fields []avro.SchemaField, names []string) []avro.SchemaField {
	return slices.DeleteFunc(slices.Clone(fields), func(f avro.SchemaField) bool { return !slices.Contains(names, f.Name) })
}

func (s *manifestSchemas) open(content []byte) (*manifestReader, error) {
	m := &manifestReader{partitions: map[int]string{}}
	var err error
	m.avro, err = ocf.NewReader(bytes.NewReader(content), ocf.WithReaderSchemaFunc(func(r *ocf.Reader) (*avro.Schema, error) {
		return s.of(r.Schema())
	}))
	if err != nil {
		return nil, err
	}
	for _, entry := range m.avro.Schema().Root().Fields {
		for _, f := range entry.Type.Fields {
			if f.Name == "partition" {
				for _, p := range f.Type.Fields {
					if id, ok := fieldID(p); ok {
						m.partitions[id] = p.Name
					}
				}
			}
		}
	}
	return m, nil
}

func fieldID(f avro.SchemaField) (int, bool) {
	switch id := f.Props["field-id"].(type) {
	case float64:
		return int(id), true
	case int64:
		return int(id), true
	case int:
		return id, true
	}
	return 0, false
}

// next is the next entry of a file that is there, valid until the next call; nil after the last one.
func (m *manifestReader) next() (*manifestEntry, error) {
	for {
		if err := m.avro.Decode(&m.entry); errors.Is(err, io.EOF) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		if m.entry.Status < 0 || m.entry.Status > statusDeleted {
			return nil, fmt.Errorf("an entry has status %d", m.entry.Status)
		}
		if m.entry.Status != statusDeleted {
			return &m.entry, nil
		}
	}
}

// text is a partition value of the entry.
func (m *manifestReader) text(field int) (string, bool) {
	s, ok := m.entry.File.Partition[m.partitions[field]].(string)
	return s, ok
}

// day is a partition value of the entry.
func (m *manifestReader) day(field int) (int32, bool) {
	switch v := m.entry.File.Partition[m.partitions[field]].(type) {
	case int32:
		return v, true
	case time.Time: // as the schema says that it is a date
		return dayOf(v.UnixMicro()), true
	}
	return 0, false
}

// bound is the value of a column in bounds.
func bound(bounds []manifestBound, column int) []byte {
	for i := range bounds {
		if int(bounds[i].Column) == column {
			return bounds[i].Value
		}
	}
	return nil
}
