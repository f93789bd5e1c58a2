package lake

import (
	"context"

	"github.com/apache/iceberg-go/table"
)

// OpenWithFaults opens a lake whose file system asks fault before each change; see fileSystem.
func OpenWithFaults(ctx context.Context, cfg Config, fault func(op, path string) error) (*Lake, error) {
	cfg.fault = fault
	return Open(ctx, cfg)
}

// Interrupt calls fn after each commit that the lake's catalogue has made; its error is what the writer is told.
func (l *Lake) Interrupt(fn func() error) { l.catalog = interrupted{l.catalog, fn} }

type interrupted struct {
	catalogue
	after func() error
}

func (c interrupted) CommitTable(ctx context.Context, name table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	meta, location, err := c.catalogue.CommitTable(ctx, name, reqs, updates)
	if err == nil {
		err = c.after()
	}
	return meta, location, err
}
