package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// walSuffix ends the name of the file with what was committed since the database's file was written last. It need not be there.
const walSuffix = ".wal"

// copyChunk is how many bytes are copied between two looks at whether they are still wanted.
const copyChunk = 64 << 20

// Copy copies the database into the file to, which must not be there yet, and when there is one its log into to.wal. Together they are what a process
// leaves that was killed between two writes: Open takes them. Writes wait meanwhile, for as long as it takes to copy the file, or no time where the file
// system copies by reference; searches do not. After an error what there is of the copy is to be removed.
func (s *Server) Copy(ctx context.Context, to string) error {
	err := s.writer.change(ctx, func(_ context.Context, _ *sql.Tx, c *catalog) (*catalog, error) { return c, s.copyFiles(ctx, to) })
	if err != nil {
		return fmt.Errorf("copy index %s: %w", s.config.Path, err)
	}
	return nil
}

func (s *Server) copyFiles(ctx context.Context, to string) error {
	// DuckDB's lock on its file is the process's, and gone once the process closes the file, whoever had opened it: this one stays open.
	if s.file == nil {
		f, err := os.Open(s.config.Path)
		if err != nil {
			return err
		}
		s.file = f
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := copyTo(ctx, to, s.file); err != nil {
		return err
	}
	wal, err := os.Open(s.config.Path + walSuffix) // which has no lock
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(copyTo(ctx, to+walSuffix, wal), wal.Close())
}

func copyTo(ctx context.Context, to string, from *os.File) (err error) {
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch _, err := io.CopyN(out, from, copyChunk); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
