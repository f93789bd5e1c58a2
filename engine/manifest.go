package engine

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"millrace/sink"
)

// ErrDamaged means that a checkpoint or savepoint is not what was written.
var ErrDamaged = errors.New("is damaged")

// sumLine begins the last line of a manifest, which has the checksum of what comes before it.
const sumLine = "\ncrc32c "

// History is the lineage that the checkpoint was made in.
func (m Manifest) History() sink.Lineage {
	return sink.Lineage{ID: m.Lineage, Token: max(m.Token, 1), Ancestors: m.Ancestors}
}

func (m Manifest) encode() ([]byte, error) {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(text, "%s%08x\n", sumLine, crc32.Checksum(text, castagnoli)), nil
}

func decodeManifest(text []byte) (m Manifest, err error) {
	i := bytes.LastIndex(text, []byte(sumLine))
	if i < 0 {
		return m, errors.New("its last line is missing")
	}
	body := text[:i]
	if want := fmt.Sprintf("%08x\n", crc32.Checksum(body, castagnoli)); string(text[i+len(sumLine):]) != want {
		return m, errors.New("its checksum is not that of its last line")
	}
	return m, json.Unmarshal(body, &m)
}

// ReadManifest reads what the checkpoint or savepoint in dir says about itself. A nil fs is the operating system's. The error matches
// ErrDamaged when the manifest is not what was written.
func ReadManifest(fs vfs.FS, dir string) (Manifest, error) {
	if fs == nil {
		fs = vfs.Default
	}
	name := fs.PathJoin(dir, manifestName)
	f, err := fs.Open(name)
	if err != nil {
		return Manifest{}, fmt.Errorf("%s is not a checkpoint: %w", dir, err)
	}
	text, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return Manifest{}, fmt.Errorf("read checkpoint %s: %w", dir, err)
	}
	m, err := decodeManifest(text)
	if err != nil {
		return m, fmt.Errorf("%s %w: %w", name, ErrDamaged, err)
	}
	if err := checkFormat("checkpoint", dir, m.Format); err != nil {
		return m, err
	}
	return m, nil
}

// Verify reads a checkpoint or savepoint whole and returns what it says about itself. The error matches ErrDamaged when a file
// is missing, short, or not what was written; it names the file, and the newest good checkpoint in the same folder that is not
// newer, if there is one. A nil fs is the operating system's.
func Verify(fs vfs.FS, dir string) (Manifest, error) {
	if fs == nil {
		fs = vfs.Default
	}
	m, err := verify(fs, dir)
	if errors.Is(err, ErrDamaged) {
		err = fmt.Errorf("%w; %s", err, offer(fs, dir, m))
	}
	return m, err
}

func verify(fs vfs.FS, dir string) (Manifest, error) {
	m, err := ReadManifest(fs, dir)
	if err != nil {
		return m, err
	}
	for _, f := range m.Files {
		if err := f.verify(fs, dir); err != nil {
			return m, err
		}
	}
	return m, nil
}

func (f File) verify(vfs vfs.FS, dir string) error {
	if strings.Contains(f.Name, "..") {
		return fmt.Errorf("%s %w: its manifest names a file outside, %s", dir, ErrDamaged, f.Name)
	}
	name := vfs.PathJoin(dir, f.Name)
	info, err := vfs.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s %w: it is missing", name, ErrDamaged)
	case err != nil:
		return err
	case info.Size() < f.Bytes:
		return fmt.Errorf("%s %w: it has %d bytes where %d were written", name, ErrDamaged, info.Size(), f.Bytes)
	}
	crc, err := checksum(vfs, name, f.Bytes)
	if err != nil {
		return err
	}
	if crc != f.CRC {
		return fmt.Errorf("%s %w: its checksum is not the manifest's", name, ErrDamaged)
	}
	return nil
}

// offer says which checkpoint beside a damaged one can be taken instead.
func offer(fs vfs.FS, dir string, damaged Manifest) string {
	all, err := ListCheckpoints(fs, fs.PathDir(dir))
	if err == nil {
		for _, l := range all {
			if l.Err != nil || l.Dir == dir || !damaged.Made.IsZero() && l.Manifest.Made.After(damaged.Made) {
				continue
			}
			if damaged.Instance != "" && l.Manifest.Instance != damaged.Instance {
				continue
			}
			if _, err := verify(fs, l.Dir); err == nil {
				return fmt.Sprintf("the next older one that is good is %s (epoch %d, %s)", l.Dir, l.Manifest.Epoch, l.Manifest.Made.Format("2006-01-02 15:04:05Z"))
			}
		}
	}
	return "there is no older one beside it that is good"
}

// Listed is a checkpoint or savepoint in a folder.
type Listed struct {
	Dir      string
	Manifest Manifest
	Err      error // of ReadManifest
}

// ListCheckpoints lists the checkpoints or savepoints in a folder, the newest first and those whose manifest cannot be read last. It
// reads their manifests alone. A folder that does not exist has none. A nil fs is the operating system's.
func ListCheckpoints(vfsys vfs.FS, folder string) ([]Listed, error) {
	if vfsys == nil {
		vfsys = vfs.Default
	}
	names, err := vfsys.List(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	var all []Listed
	for _, name := range names {
		dir := vfsys.PathJoin(folder, name)
		info, err := vfsys.Stat(dir)
		if err != nil || !info.IsDir() || strings.HasPrefix(name, "tmp-") {
			continue
		}
		l := Listed{Dir: dir}
		l.Manifest, l.Err = ReadManifest(vfsys, dir)
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b Listed) int {
		if (a.Err == nil) != (b.Err == nil) {
			return cmp.Compare(boolInt(a.Err != nil), boolInt(b.Err != nil))
		}
		return cmp.Or(b.Manifest.Made.Compare(a.Manifest.Made), cmp.Compare(a.Dir, b.Dir))
	})
	return all, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
