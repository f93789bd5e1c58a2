package artifact

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Manifest says what an artifact is: one version of an app, for one platform.
//
// An artifact is a gzipped tar of two files: manifest.json, and then app, the executable.
type Manifest struct {
	Format   int       `json:"format"`
	App      string    `json:"app"`
	Version  string    `json:"version"`
	Platform string    `json:"platform"` // linux/amd64
	SHA256   string    `json:"sha256"`   // of the executable
	Bytes    int64     `json:"bytes"`    // of it
	Commit   string    `json:"commit,omitempty"`
	Modified bool      `json:"modified,omitempty"` // the source was not that of the commit
	Go       string    `json:"go"`
	Built    time.Time `json:"built"`

	Description
}

const (
	archiveFormat  = 1
	manifestName   = "manifest.json"
	executableName = "app"

	maxManifest   = 16 << 20 // bytes
	maxExecutable = 2 << 30

	// describesWithin is how long an executable may take to say what it holds.
	describesWithin = 30 * time.Second
)

// ErrBad is matched by the errors for what is no artifact, or not one of this machine.
var ErrBad = errors.New("no artifact that can be used here")

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBad, fmt.Sprintf(format, args...))
}

// Describe asks an executable what it holds.
func Describe(ctx context.Context, executable string) (d Description, err error) {
	ctx, cancel := context.WithTimeout(ctx, describesWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, executable, DescribeCommand)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it has said nothing in %s", describesWithin)
		}
		return d, bad("%s does not say what app it holds: %s: %s", filepath.Base(executable), err, bytes.TrimSpace(said.Bytes()))
	}
	if err := json.Unmarshal(out.Bytes(), &d); err != nil || d.Plan.App == "" {
		return d, bad("%s does not say what app it holds: its main function calls artifact.Main", filepath.Base(executable))
	}
	if d.SpecFormat != SpecFormat {
		return d, bad("it is of another Millrace, which starts jobs by format %d, and this one does by %d: build it again with this one's module", d.SpecFormat, SpecFormat)
	}
	return d, nil
}

// Pack writes the artifact of an executable.
func Pack(ctx context.Context, executable string, to io.Writer) (m Manifest, err error) {
	m = Manifest{Format: archiveFormat, Built: time.Now().UTC().Truncate(time.Second)}
	if m.Description, err = Describe(ctx, executable); err != nil {
		return m, err
	}
	m.App, m.Version = m.Plan.App, m.Plan.Version
	info, err := buildinfo.ReadFile(executable)
	if err != nil {
		return m, bad("%s: %s", filepath.Base(executable), err)
	}
	m.Go = info.GoVersion
	var system, processor string
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS":
			system = s.Value
		case "GOARCH":
			processor = s.Value
		case "vcs.revision":
			m.Commit = s.Value
		case "vcs.modified":
			m.Modified = s.Value == "true"
		}
	}
	m.Platform = system + "/" + processor
	f, err := os.Open(executable)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sha256.New()
	if m.Bytes, err = io.Copy(sum, f); err != nil {
		return m, err
	}
	m.SHA256 = hex.EncodeToString(sum.Sum(nil))
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return m, err
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return m, err
	}
	packed := gzip.NewWriter(to)
	files := tar.NewWriter(packed)
	err = errors.Join(
		files.WriteHeader(&tar.Header{Name: manifestName, Mode: 0o644, Size: int64(len(text)), ModTime: m.Built}), write(files, bytes.NewReader(text)),
		files.WriteHeader(&tar.Header{Name: executableName, Mode: 0o755, Size: m.Bytes, ModTime: m.Built}), write(files, f),
	)
	return m, errors.Join(err, files.Close(), packed.Close())
}

func write(to io.Writer, from io.Reader) error {
	_, err := io.Copy(to, from)
	return err
}

// Unpack reads an artifact into a folder, which it makes: manifest.json and app. It is checked that both are what they say, and that the
// executable is for this platform; nothing is executed. What is wrong with it is an error that matches ErrBad.
func Unpack(from io.Reader, dir, platform string) (m Manifest, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return m, err
	}
	packed, err := gzip.NewReader(from)
	if err != nil {
		return m, bad("it is no gzipped file: %s; 'millrace build' makes one", err)
	}
	files := tar.NewReader(packed)
	text, err := next(files, manifestName, maxManifest)
	if err != nil {
		return m, err
	}
	all, err := io.ReadAll(text)
	if err != nil {
		return m, bad("%s: %s", manifestName, err)
	}
	if err := json.Unmarshal(all, &m); err != nil {
		return m, bad("%s: %s", manifestName, err)
	}
	switch {
	case m.Format != archiveFormat:
		return m, bad("it has format %d, and this program reads %d", m.Format, archiveFormat)
	case m.Platform != platform:
		return m, bad("it is for %s, and this machine is %s: build it with GOOS and GOARCH of this one", m.Platform, platform)
	case m.App != m.Plan.App || m.Version != m.Plan.Version || m.App == "" || m.Version == "":
		return m, bad("%s contradicts itself: it is of %q %q and of %q %q", manifestName, m.App, m.Version, m.Plan.App, m.Plan.Version)
	}
	app, err := next(files, executableName, maxExecutable)
	if err != nil {
		return m, err
	}
	f, err := os.OpenFile(Executable(dir), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return m, err
	}
	sum := sha256.New()
	n, copyErr := io.Copy(io.MultiWriter(f, sum), app)
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return m, err
	}
	if copyErr != nil {
		return m, bad("it is cut off or damaged: %s; send it again", copyErr)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != m.SHA256 || n != m.Bytes {
		return m, bad("its executable has %d bytes with checksum %s, and should have %d with %s; send it again, or build it again", n, got, m.Bytes, m.SHA256)
	}
	return m, os.WriteFile(filepath.Join(dir, manifestName), all, 0o600)
}

// Executable is that of an artifact that is unpacked in a folder.
func Executable(dir string) string { return filepath.Join(dir, executableName) }

// next returns the next file of an artifact, which must have that name.
func next(files *tar.Reader, name string, most int64) (io.Reader, error) {
	h, err := files.Next()
	if err != nil {
		return nil, bad("it lacks %s: %s", name, err)
	}
	if h.Name != name || h.Typeflag != tar.TypeReg {
		return nil, bad("it has %s where %s should be", h.Name, name)
	}
	if h.Size > most {
		return nil, bad("its %s has %d bytes, and may have %d", name, h.Size, most)
	}
	return files, nil
}
