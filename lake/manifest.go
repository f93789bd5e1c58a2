package lake

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/avro"
)

// manifestEntry is what is read of an entry of a manifest. iceberg-go's readers make all of an entry, which costs many times as much: too much
// for a question about thousands of files.
type manifestEntry struct {
	status                   int64
	sourceType, account, env []byte // nil: not named; valid until the next entry is read
	day                      int32
	dated                    bool
	records, bytes           int64
	lower, upper             []byte // of the column whose day is the partition's; nil: not known
}

const statusDeleted = 2 // of an entry: the file is gone

// manifestStep takes the next value of an entry.
type manifestStep func(*avroCursor, *manifestEntry)

// manifestSteps makes steps out of the schemas of manifests. Those of a table are alike, so it keeps the last ones.
type manifestSteps struct {
	columns partitionColumns

	mu      sync.Mutex
	written string
	steps   []manifestStep
}

func (s *manifestSteps) of(written string) ([]manifestStep, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.steps != nil && s.written == written {
		return s.steps, nil
	}
	schema, err := avro.Parse(written)
	if err != nil {
		return nil, fmt.Errorf("its schema: %w", err)
	}
	root := schema.Root().ExpandReferences()
	steps, err := fieldSteps(root, map[string]stepOf{
		"status": number(func(e *manifestEntry) *int64 { return &e.status }),
		"data_file": func(n *avro.SchemaNode) (manifestStep, error) {
			return recordStep(n, map[string]stepOf{
				"partition":          s.partition,
				"record_count":       number(func(e *manifestEntry) *int64 { return &e.records }),
				"file_size_in_bytes": number(func(e *manifestEntry) *int64 { return &e.bytes }),
				"lower_bounds":       optional(s.bounds(func(e *manifestEntry) *[]byte { return &e.lower })),
				"upper_bounds":       optional(s.bounds(func(e *manifestEntry) *[]byte { return &e.upper })),
			}, "partition", "record_count", "file_size_in_bytes")
		},
	}, "status", "data_file")
	if err != nil {
		return nil, err
	}
	s.written, s.steps = written, steps
	return steps, nil
}

// stepOf makes the step that takes a value of a type.
type stepOf func(*avro.SchemaNode) (manifestStep, error)

// fieldSteps makes the steps of a record that has the required fields: those of known fields, and between them one over all others.
func fieldSteps(record *avro.SchemaNode, known map[string]stepOf, required ...string) (steps []manifestStep, err error) {
	if record.Type != "record" {
		return nil, fmt.Errorf("its schema has %s where a record belongs", record.Type)
	}
	var others []*avroType
	pass := func() {
		if t := avroSequence(others...); t != nil {
			steps = append(steps, func(c *avroCursor, _ *manifestEntry) { c.skip(t) })
		}
		others = nil
	}
	for i := range record.Fields {
		f := &record.Fields[i]
		of := known[f.Name]
		if of == nil {
			t, err := avroTypeOf(&f.Type)
			if err != nil {
				return nil, err
			}
			others = append(others, t)
			continue
		}
		pass()
		step, err := of(&f.Type)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", f.Name, err)
		}
		steps = append(steps, step)
		required = slices.DeleteFunc(required, func(name string) bool { return name == f.Name })
	}
	pass()
	if len(required) > 0 {
		return nil, fmt.Errorf("its schema has no field %s", required[0])
	}
	return steps, nil
}

func recordStep(record *avro.SchemaNode, known map[string]stepOf, required ...string) (manifestStep, error) {
	steps, err := fieldSteps(record, known, required...)
	return func(c *avroCursor, e *manifestEntry) {
		for _, step := range steps {
			step(c, e)
		}
	}, err
}

// optional makes the step of a type, or of a union of it and null.
func optional(of stepOf) stepOf {
	return func(n *avro.SchemaNode) (manifestStep, error) {
		if n.Type != "union" {
			return of(n)
		}
		branches := make([]manifestStep, len(n.Branches))
		for i := range n.Branches {
			if n.Branches[i].Type == "null" {
				continue
			}
			var err error
			if branches[i], err = of(&n.Branches[i]); err != nil {
				return nil, err
			}
		}
		return func(c *avroCursor, e *manifestEntry) {
			if i, ok := c.branch(len(branches)); ok && branches[i] != nil {
				branches[i](c, e)
			}
		}, nil
	}
}

func number(to func(*manifestEntry) *int64) stepOf {
	return func(n *avro.SchemaNode) (manifestStep, error) {
		if n.Type != "int" && n.Type != "long" {
			return nil, fmt.Errorf("its schema has %s where a number belongs", n.Type)
		}
		return func(c *avroCursor, e *manifestEntry) { *to(e) = c.long() }, nil
	}
}

func text(to func(*manifestEntry) *[]byte) stepOf {
	return func(n *avro.SchemaNode) (manifestStep, error) {
		if n.Type != "string" {
			return nil, fmt.Errorf("its schema has %s where a string belongs", n.Type)
		}
		return func(c *avroCursor, e *manifestEntry) { *to(e) = c.text() }, nil
	}
}

func day(n *avro.SchemaNode) (manifestStep, error) {
	if n.Type != "int" {
		return nil, fmt.Errorf("its schema has %s where a day belongs", n.Type)
	}
	return func(c *avroCursor, e *manifestEntry) { e.day, e.dated = c.int(), true }, nil
}

// partition makes the step that takes a file's partition. Its fields are told by their ids, as their names may have been changed.
func (s *manifestSteps) partition(n *avro.SchemaNode) (manifestStep, error) {
	known := map[string]stepOf{}
	for _, f := range n.Fields {
		id, ok := fieldID(f)
		if !ok {
			continue
		}
		switch id {
		case s.columns.sourceType:
			known[f.Name] = optional(text(func(e *manifestEntry) *[]byte { return &e.sourceType }))
		case s.columns.account:
			known[f.Name] = optional(text(func(e *manifestEntry) *[]byte { return &e.account }))
		case s.columns.env:
			known[f.Name] = optional(text(func(e *manifestEntry) *[]byte { return &e.env }))
		case s.columns.day:
			known[f.Name] = optional(day)
		}
	}
	return recordStep(n, known)
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

// bounds makes the step that takes from the bounds of all columns that of the one whose day is the partition's.
func (s *manifestSteps) bounds(to func(*manifestEntry) *[]byte) stepOf {
	column := int64(s.columns.time)
	return func(n *avro.SchemaNode) (manifestStep, error) {
		if n.Type != "array" || n.Items.Type != "record" {
			return nil, fmt.Errorf("its schema has %s where an array of records belongs", n.Type)
		}
		fields := n.Items.Fields
		if len(fields) < 2 || fields[0].Name != "key" || fields[0].Type.Type != "int" || fields[1].Name != "value" || fields[1].Type.Type != "bytes" {
			return nil, errors.New("its schema has other bounds than an int key and its bytes value")
		}
		others := make([]*avroType, len(fields)-2)
		for i := range others {
			var err error
			if others[i], err = avroTypeOf(&fields[i+2].Type); err != nil {
				return nil, err
			}
		}
		rest := avroSequence(others...)
		return func(c *avroCursor, e *manifestEntry) {
			var bound []byte
			for n, _ := c.items(); n > 0; n, _ = c.items() {
				for ; n > 0 && c.err == nil; n-- {
					key, value := c.long(), c.text()
					if c.skip(rest); key == column && bound == nil {
						bound = value
					}
				}
			}
			*to(e) = bound
		}, nil
	}
}

// manifestReader reads the entries of a manifest as far as an extent needs them.
type manifestReader struct {
	file   *avroFile
	steps  []manifestStep
	buf    *avroBuffer
	left   int64 // entries of the block
	cursor avroCursor
	entry  manifestEntry
}

// open begins to read a manifest. The caller must close what it returns.
func (s *manifestSteps) open(content []byte) (*manifestReader, error) {
	file, err := openAvro(content)
	if err != nil {
		return nil, err
	}
	steps, err := s.of(file.schema)
	if err != nil {
		return nil, err
	}
	return &manifestReader{file: file, steps: steps, buf: avroBuffers.Get().(*avroBuffer)}, nil
}

func (m *manifestReader) close() { avroBuffers.Put(m.buf) }

// next is the next entry of a file that is there, valid until the next call; nil after the last one.
func (m *manifestReader) next() (*manifestEntry, error) {
	for {
		if m.left == 0 {
			if n := m.cursor.left(); n > 0 {
				return nil, fmt.Errorf("a block has %d bytes beyond its entries", n)
			}
			left, content, err := m.file.next(m.buf)
			if err != nil {
				return nil, err
			}
			m.left, m.cursor = left, avroCursor{bytes: content}
			if m.left == 0 {
				return nil, nil
			}
		}
		m.left--
		m.entry = manifestEntry{}
		for _, step := range m.steps {
			step(&m.cursor, &m.entry)
		}
		if m.cursor.err != nil {
			return nil, m.cursor.err
		}
		if m.entry.status < 0 || m.entry.status > statusDeleted {
			return nil, fmt.Errorf("an entry has status %d", m.entry.status)
		}
		if m.entry.status != statusDeleted {
			return &m.entry, nil
		}
	}
}
