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
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"millrace/lake"

	"github.com/spf13/cobra"
)

// A backup is a folder with a copy of a data directory, as of one moment, and a manifest, which is written last:
//
//	backup.json   what is in it: each file's size and SHA-256
//	data/         the files
//
// What has no manifest is no backup.
//
// Of a directory that nothing uses, the files are the moment. Of one in use (backup_online.go) the copy has to be one that a kill of everything could
// have left at that moment, because that is what a start repairs. What a start relies on, and what is done for it:
//
//   - What a sink's target holds was made by an epoch that is committed. A target that is ahead of its job's state would take the epochs that the
//     restored job makes anew for those it has, and rows would be lost. So sinks are held: none publishes from before the targets are copied until the
//     states are, and each position says all that its target has. Jobs go on reading and committing; what is committed meanwhile is in the outbox, and
//     is published by the restored job. Held are lake, index and table topics; compaction, expiry and sweeps of the lake are publications too.
//   - Offsets that a state has committed are in the log. So the log comes after the states. It has more than they have read, as ever; and all that
//     was acknowledged before the moment. Its files are only appended to: a length of each is a copy (broker.Snapshot), and collecting goes on.
//   - Snapshots of the lake that a state is seeded from are in the catalogue. They were pinned before the state named them, and are let go of after it does
//     not: the catalogue comes before the states. A job that began its seeding in between lacks the pin, not the snapshot, which is the newest one.
//   - What the control store says has been done was done. So it comes first; what was done and is not recorded is done again, to no effect. And while the
//     directory is copied no step of an operation begins, nor a process of a job: a directory that is made, renamed or removed half is none (gated.go).
//   - What a demo's simulator remembers is of one moment with the log: its state file is held while both are taken.
//
// The order is then: shut the gate, hold the sinks, and copy control store, catalogue and files of the lake, states, savepoints, index and log; let go. For the
// time of that the files are hard links in the directory itself, made in a moment, as most never change and the rest are only appended to: what
// they are copied from afterwards, at leisure. What is small or changes is copied at once, and so is the index: DuckDB's one file changes in its midst.
//
// A copy of the state of a job has no checkpoints, which are for the damage that a backup is for; savepoints are all there. What of the
// lineages' claims (sink.Lineage) is in the targets is as of the moment too: no new lineage is begun for a restored directory.
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
		Short: "Copy a data directory, with checksums, also while it is used",
		Long: `Copy a data directory, with checksums, into a new folder: state, savepoints, keys, and log, index and lake where those are in the directory.
A process that uses the directory makes the backup itself, of one moment, and goes on meanwhile: it has to be able to write the folder.
What is elsewhere (a Kafka, an Elasticsearch, a bucket, a catalogue) is not in it, and is named. Copies of those belong to the same moment: a job goes on from offsets and snapshots that have to
be there.`,
		Args: exactArgs("the folder to make"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		made, err := backUp(cmd, args[0])
		if err != nil {
			return err
		}
		made.print(cmd, args[0])
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

// backUp makes a backup of the command's data directory, or has the process make it that uses it.
func backUp(cmd *cobra.Command, to string) (made madeBackup, err error) {
	path := dataDirFlag(cmd)
	dir, err := readDataDir(path) // not made for this
	if err != nil {
		return made, err
	}
	if r, ok := dir.running(); ok {
		if to, err = filepath.Abs(to); err != nil {
			return made, err
		}
		return made, localClient(r).do(cmd.Context(), http.MethodPost, backupPath, backupAsk{Folder: to, Who: whoAmI()}, &made)
	}
	if dir, err = openStillDataDir(cmd.Context(), path); err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	b, err := makeBackup(cmd.Context(), dir, to)
	return b.made(), err
}

// madeBackup is what is said of a backup that was made.
type madeBackup struct {
	Moment  time.Time `json:"moment"` // that it is of
	Files   int       `json:"files"`
	Bytes   int64     `json:"bytes"`
	Missing []string  `json:"missing"`                // as that of a manifest
	Held    float64   `json:"held_seconds,omitempty"` // that nothing was published; 0: nothing ran
}

func (b backup) made() madeBackup {
	return madeBackup{Moment: b.Made, Files: len(b.Files), Bytes: b.Bytes, Missing: b.Missing}
}

func (m madeBackup) print(cmd *cobra.Command, folder string) {
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %d files, %.1f MB", folder, m.Files, float64(m.Bytes)/1e6)
	if m.Held > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), ", of %s; nothing was published for %.2f s", m.Moment.Format(time.RFC3339), m.Held)
	}
	fmt.Fprintln(cmd.OutOrStdout())
	for _, part := range m.Missing {
		fmt.Fprintf(cmd.ErrOrStderr(), "millrace: not in it: %s\n", part)
	}
}

// leftOut are files of a data directory that are of the process that uses it.
var leftOut = []string{"lock", "running.json", processesDir, stagingDir}

// makeBackup copies a data directory that nothing uses.
func makeBackup(ctx context.Context, dir *dataDir, to string) (b backup, err error) {
	source, err := makeTarget(dir, to)
	if err != nil {
		return b, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("back up %s: %w; what there is of it in %s is no backup", dir.path, err, to), os.RemoveAll(to))
		}
	}()
	missing, err := elsewhere(ctx, dir)
	if err != nil {
		return b, err
	}
	b = backup{Format: backupFormat, Made: time.Now().UTC(), Version: version, Source: source, Missing: missing}
	files, err := filesOf(source, leftOut)
	if err != nil {
		return b, err
	}
	return b, b.write(ctx, dir, to, files)
}

// makeTarget makes the folder of a backup, and returns the real path of what it is to be of.
func makeTarget(dir *dataDir, to string) (source string, err error) {
	if source, err = realPath(dir.path); err != nil { // systemd's state directories are links
		return "", err
	}
	folder, err := realPath(filepath.Dir(filepath.Clean(to)))
	if err != nil {
		return "", fmt.Errorf("make %s: %w", to, cause(err))
	}
	target := filepath.Join(folder, filepath.Base(to))
	if rel, err := filepath.Rel(source, target); err == nil && filepath.IsLocal(rel) {
		return "", usagef("%s is in the data directory, whose backup it would be; name a folder elsewhere", to)
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return "", thereError{fmt.Errorf("%s is there already; name a folder that is not, or remove it", to)}
		}
		return "", fmt.Errorf("make %s: %w", to, cause(err))
	}
	return source, nil
}

// thereError says that a folder is there that was to be made.
type thereError struct{ error }

func (thereError) Unwrap() error { return fs.ErrExist }

// original is a file that goes into a backup.
type original struct {
	backupFile        // without a checksum
	at         string // where it is now
}

// filesOf are the files below a folder, but for some that are named from there.
func filesOf(folder string, without []string) (all []original, err error) {
	return all, filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		if slices.Contains(without, rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil || d.IsDir() {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is neither a file nor a folder; a data directory has no such thing", path)
		}
		all = append(all, original{backupFile{Path: filepath.ToSlash(rel), Mode: info.Mode().Perm(), Bytes: info.Size()}, path})
		return nil
	})
}

// write copies files to their places in the backup, but for those that are there, and writes the manifest.
func (b *backup) write(ctx context.Context, dir *dataDir, to string, files []original) error {
	rest := int64(0)
	for _, f := range files {
		rest += f.Bytes
	}
	if err := os.MkdirAll(filepath.Join(to, backupData), 0o700); err != nil {
		return err
	}
	for _, f := range files {
		target := filepath.Join(to, backupData, filepath.FromSlash(f.Path))
		if f.at != target {
			if err := dir.hasRoomFor(to, rest); err != nil {
				return err
			}
		}
		rest -= f.Bytes
		if err := f.copyTo(ctx, target); err != nil {
			return err
		}
		b.Files = append(b.Files, f.backupFile)
		b.Bytes += f.Bytes
	}
	if err := syncTree(filepath.Join(to, backupData)); err != nil {
		return err
	}
	return writeJSON(filepath.Join(to, backupManifest), b)
}

// copyTo copies the first bytes of a file, as many as it has, and notes their checksum.
func (f *original) copyTo(ctx context.Context, target string) (err error) {
	n := int64(0)
	if f.at == target {
		if n, f.SHA256, err = copyFile(ctx, f.at, "", f.Bytes, 0); err == nil {
			err = syncPath(f.at)
		}
	} else {
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return err
		}
		n, f.SHA256, err = copyFile(ctx, f.at, target, f.Bytes, f.Mode)
	}
	if err == nil && n != f.Bytes {
		err = fmt.Errorf("%s has %d bytes, and had %d", f.at, n, f.Bytes)
	}
	return err
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
func elsewhere(ctx context.Context, dir *dataDir) (parts []string, err error) {
	if dir.head.Log == external {
		parts = append(parts, "the log, a Kafka cluster")
	}
	if dir.head.Index == external {
		parts = append(parts, "the index, an Elasticsearch or OpenSearch")
	}
	places, err := lake.ReadPlaces(ctx, dir.join("lake"))
	if errors.Is(err, lake.ErrNotFound) { // it was never started
		return parts, nil
	}
	if places.Catalog != "" {
		parts = append(parts, "the catalogue of the lake, "+places.Catalog)
	}
	if places.Files != "" {
		parts = append(parts, "the files of the lake, "+places.Files)
	}
	return parts, err
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
		n, sum, err := copyFile(ctx, filepath.Join(folder, backupData, filepath.FromSlash(f.Path)), "", wholeFile, 0)
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
		n, sum, err := copyFile(ctx, from, into, wholeFile, f.Mode)
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
	return syncPath(filepath.Dir(to))
}

// wholeFile has a file be copied to its end.
const wholeFile = int64(1<<63 - 1)

// copyFile copies up to so many bytes of a file durably, or only reads them when to is empty, and returns how many there were and their SHA-256.
func copyFile(ctx context.Context, from, to string, most int64, mode fs.FileMode) (n int64, sum string, err error) {
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
	n, err = io.Copy(out, io.LimitReader(reading{ctx, in}, most))
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
		return syncPath(path)
	})
}

// syncPath syncs a file or a folder.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, cause(err))
	}
	return errors.Join(f.Sync(), f.Close())
}
