package lake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"
)

// Drop removes a namespace: its tables, with all their snapshots and files. It finishes what a Drop that was interrupted has begun, and
// does nothing when there is no such namespace. Nobody may write to the tables meanwhile; who reads them finds files missing.
func (l *Lake) Drop(ctx context.Context, namespace string) error {
	if l.cfg.ReadOnly {
		return ErrReadOnly
	}
	if err := ValidNamespace(namespace); err != nil {
		return err
	}
	if err := l.drop(ctx, namespace); err != nil {
		return fmt.Errorf("drop namespace %s of the lake: %w", namespace, err)
	}
	return nil
}

// The catalogue forgets a table before its files go: nobody finds one that lacks some.
func (l *Lake) drop(ctx context.Context, namespace string) error {
	names, err := l.Tables(ctx)
	if err != nil {
		return err
	}
	for _, n := range names {
		if n.Namespace != namespace {
			continue
		}
		if err := l.catalog.DropTable(ctx, n.identifier()); err != nil && !errors.Is(err, catalog.ErrNoSuchTable) {
			return err
		}
	}
	var files []string
	err = l.fsys.walk(l.base+"/"+namespace, func(location string, _ fs.FileInfo) error {
		files = append(files, location)
		return nil
	})
	if err != nil {
		return err
	}
	for _, location := range files {
		if err := l.fsys.Remove(location); err != nil {
			return err
		}
	}
	if err := l.fsys.removeDirs(l.base + "/" + namespace); err != nil {
		return err
	}
	if err := l.catalog.DropNamespace(ctx, table.Identifier{namespace}); err != nil && !errors.Is(err, catalog.ErrNoSuchNamespace) {
		return err
	}
	return nil
}
