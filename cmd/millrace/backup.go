package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// A backup is a folder with a copy of a data directory that nothing used meanwhile, and a manifest, which is written last:
//
//	backup.json   what is in it: each file's size and SHA-256
//	data/         the files
//
// What has no manifest is no backup.
const (
	backupManifest = "backup.json"
	backupData     = "data"
	backupFormat   = 1
)

// backup is what a manifest says.
type backup struct {
	Format  int          `json:"format"`
	Made    time.Time    `json:"made"`
	Version string       `json:"version"` // of the program that made it
	Source  string       `json:"source"`  // the data directory
	Missing []string     `json:"missing"` // parts of the data that are elsewhere, and not in it
	Bytes   int64        `json:"bytes"`
	Files   []backupFile `json:"files"`
}

type backupFile struct {
	Path   string      `json:"path"`
	Mode   fs.FileMode `json:"mode"`
	Bytes  int64       `json:"bytes"`
	SHA256 string      `json:"sha256"`
}

func backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup FOLDER",
		Short: "Copy a data directory that nothing uses, with checksums",
		Long: `Copy a data directory that nothing uses, with checksums, into a new folder: state, savepoints, keys, and log, index and lake where those are in the directory.
What is elsewhere (a Kafka, an Elasticsearch, a bucket, a catalogue) is not in it, and is named. Copies of those belong to the same moment: a job goes on from offsets and snapshots that have to
be there.`,
		Args: exactArgs("the folder to make"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if _, err := readDataDir(dataDirFlag(cmd)); err != nil { // not made for this
			return err
		}
		dir, err := openStillDataDir(cmd.Context(), dataDirFlag(cmd))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, dir.Close()) }()
		b, err := makeBackup(cmd.Context(), dir, args[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %d files, %.1f MB\n", args[0], len(b.Files), float64(b.Bytes)/1e6)
		for _, part := range b.Missing {
			fmt.Fprintf(cmd.ErrOrStderr(), "millrace: not in it: %s\n", part)
		}
		return nil
	}
	cmd.AddCommand(backupVerifyCommand())
	return cmd
}

func backupVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "verify FOLDER", Short: "Read a backup whole, and name what is damaged", Args: exactArgs("the folder of a backup")}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		b, err := readBackup(args[0])
		if err == nil {
			err = b.verify(cmd.Context(), args[0])
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is good: %d files, %.1f MB, of %s\n", args[0], len(b.Files), float64(b.Bytes)/1e6, b.Made.Format(time.RFC3339))
		return nil
	}
	return cmd
}

func restoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore FOLDER",
		Short: "Make a data directory of a backup",
		Long: `Make a data directory of a backup: the one that --data-dir names, which must not be there yet. Each file is checked as it is copied, and the directory appears when all of it is
there. Start it with the flags that the one before was used with.`,
		Args: exactArgs("the folder of a backup"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		b, err := readBackup(args[0])
		if err != nil {
			return err
		}
		to := dataDirFlag(cmd)
		if err := b.restore(cmd.Context(), args[0], to); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is as %s was at %s\n", to, b.Source, b.Made.Format(time.RFC3339))
		for _, part := range b.Missing {
			fmt.Fprintf(cmd.ErrOrStderr(), "millrace: not in the backup: %s\n", part)
		}
		return nil
	}
	return cmd
}

// leftOut are files of a data directory that are of the process that uses it.
var leftOut = []string{"lock", "running.json", processesDir}

// makeBackup copies a data directory.
func makeBackup(ctx context.Context, dir *dataDir, to string) (b backup, err error) {
	source, err := realPath(dir.path) // systemd's state directories are links
	if err != nil {
		return b, err
	}
	folder, err := realPath(filepath.Dir(filepath.Clean(to)))
	if err != nil {
		return b, fmt.Errorf("make %s: %w", to, cause(err))
	}
	target := filepath.Join(folder, filepath.Base(to))
	if rel, err := filepath.Rel(source, target); err == nil && filepath.IsLocal(rel) {
		return b, usagef("%s is in the data directory, whose backup it would be; name a folder elsewhere", to)
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return b, fmt.Errorf("%s is there already; name a folder that is not, or remove it", to)
		}
		return b, fmt.Errorf("make %s: %w", to, cause(err))
	}
	b = backup{Format: backupFormat, Made: time.Now().UTC(), Version: version, Source: source, Missing: elsewhere(dir)}
	err = filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		if slices.Contains(leftOut, rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, backupData, rel), 0o700)
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is neither a file nor a folder; a data directory has no such thing", path)
		}
		f := backupFile{Path: filepath.ToSlash(rel), Mode: info.Mode().Perm()}
		f.Bytes, f.SHA256, err = copyFile(ctx, path, filepath.Join(to, backupData, rel), f.Mode)
		b.Files = append(b.Files, f)
		b.Bytes += f.Bytes
		return err
	})
	if err == nil {
		err = syncTree(filepath.Join(to, backupData))
	}
	if err == nil {
		err = writeJSON(filepath.Join(to, backupManifest), b)
	}
	if err != nil {
		return b, errors.Join(fmt.Errorf("back up %s: %w; what there is of it in %s is no backup", dir.path, err, to), os.RemoveAll(to))
	}
	return b, nil
}

// realPath is the absolute path of a folder without links.
func realPath(path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// elsewhere names the parts of the data that are not in the directory.
func elsewhere(dir *dataDir) []string {
	var parts []string
	if dir.head.Log == external {
		parts = append(parts, "the log, a Kafka cluster")
	}
	if dir.head.Index == external {
		parts = append(parts, "the index, an Elasticsearch or OpenSearch")
	}
	for _, p := range []struct{ name, what string }{{"catalog.db", "the catalogue of the lake"}, {"warehouse", "the files of the lake"}} {
		if !dir.has("lake", p.name) {
			parts = append(parts, p.what)
		}
	}
	return parts
}

// readBackup reads the manifest of a backup.
func readBackup(folder string) (b backup, err error) {
	name := filepath.Join(folder, backupManifest)
	text, err := os.ReadFile(name)
	if err != nil {
		return b, fmt.Errorf("%s is no backup, or one that was not finished: it has no %s (%w)", folder, backupManifest, cause(err))
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return b, fmt.Errorf("%s is damaged: %w; use another backup", name, err)
	}
	if b.Format != backupFormat {
		return b, fmt.Errorf("%s has format %d, and this program (%s) reads %d; use the version that made it, %s", folder, b.Format, version, backupFormat, b.Version)
	}
	for _, f := range b.Files {
		if !filepath.IsLocal(filepath.FromSlash(f.Path)) {
			return b, fmt.Errorf("%s is damaged: it names the file %q; use another backup", name, f.Path)
		}
	}
	return b, nil
}

// verify reads every file.
func (b backup) verify(ctx context.Context, folder string) error {
	var damage []error
	for _, f := range b.Files {
		n, sum, err := copyFile(ctx, filepath.Join(folder, backupData, filepath.FromSlash(f.Path)), "", 0)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := f.compare(n, sum, err); err != nil {
			damage = append(damage, err)
		}
	}
	if len(damage) > 0 {
		return fmt.Errorf("%s is damaged; use another backup: %w", folder, errors.Join(damage...))
	}
	return nil
}

// compare returns an error unless a file was read as it was written.
func (f backupFile) compare(n int64, sum string, err error) error {
	switch {
	case err != nil:
		return err
	case n != f.Bytes:
		return fmt.Errorf("%s has %d bytes, and had %d", f.Path, n, f.Bytes)
	case sum != f.SHA256:
		return fmt.Errorf("%s is not what was written", f.Path)
	}
	return nil
}

// restore makes a data directory, which appears when it is whole.
func (b backup) restore(ctx context.Context, folder, to string) (err error) {
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("%s is there already; name a data directory that is not with --data-dir, or move it away", to)
	}
	to = filepath.Clean(to)
	tmp := to + ".restoring"
	if err := os.RemoveAll(tmp); err != nil { // of one that was interrupted
		return fmt.Errorf("remove %s: %w", tmp, cause(err))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := os.MkdirAll(tmp, 0o750); err != nil {
		return fmt.Errorf("make %s: %w", tmp, cause(err))
	}
	for _, f := range b.Files {
		from, into := filepath.Join(folder, backupData, filepath.FromSlash(f.Path)), filepath.Join(tmp, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(into), 0o750); err != nil {
			return fmt.Errorf("restore %s: %w", f.Path, cause(err))
		}
		n, sum, err := copyFile(ctx, from, into, f.Mode)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := f.compare(n, sum, err); err != nil {
			return fmt.Errorf("%s is damaged; use another backup: %w", folder, err)
		}
	}
	if err := syncTree(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, to); err != nil {
		return fmt.Errorf("restore %s: %w", to, cause(err))
	}
	return syncDir(filepath.Dir(to))
}

// copyFile copies a file durably, or only reads it when to is empty, and returns how many bytes it has and their SHA-256.
func copyFile(ctx context.Context, from, to string, mode fs.FileMode) (n int64, sum string, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, "", fmt.Errorf("%s: %w", from, cause(err))
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	hash := sha256.New()
	var out io.Writer = hash
	var file *os.File
	if to != "" {
		if file, err = os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode|0o200); err != nil {
			return 0, "", fmt.Errorf("%s: %w", to, cause(err))
		}
		out = io.MultiWriter(hash, file)
	}
	n, err = io.Copy(out, reading{ctx, in})
	if file != nil {
		if err == nil {
			err = file.Sync()
		}
		err = errors.Join(err, file.Chmod(mode), file.Close())
	}
	return n, hex.EncodeToString(hash.Sum(nil)), err
}

// reading ends with its context.
type reading struct {
	ctx context.Context
	io.Reader
}

func (r reading) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// syncTree syncs all folders of a tree.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncDir(path)
	})
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, cause(err))
	}
	return errors.Join(dir.Sync(), dir.Close())
}
