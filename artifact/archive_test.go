package artifact_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/artifact"
	"millrace/etl"
)

// what the executable says of itself, when it is not Main that does.
const says = "MILLRACE_TEST_SAYS"

// TestMain runs the tests, or is the executable of an app.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == artifact.DescribeCommand {
		if text := os.Getenv(says); text != "" {
			_, _ = io.WriteString(os.Stdout, text)
			os.Exit(0)
		}
		artifact.Main(etl.App{Name: "ingest-etl-forum-job", Version: "1.0.0"}, []byte(`{"type":"datastream-app"}`))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const platform = runtime.GOOS + "/" + runtime.GOARCH

func pack(t *testing.T) (archive []byte, m artifact.Manifest) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	var out bytes.Buffer
	m, err = artifact.Pack(t.Context(), self, &out)
	require.NoError(t, err)
	return out.Bytes(), m
}

func TestArchive(t *testing.T) {
	t.Parallel()
	archive, m := pack(t)
	require.Equal(t, "ingest-etl-forum-job", m.App)
	require.Equal(t, platform, m.Platform)
	dir := filepath.Join(t.TempDir(), "1.0.0")
	unpacked, err := artifact.Unpack(bytes.NewReader(archive), dir, platform)
	require.NoError(t, err)
	require.JSONEq(t, string(m.Descriptor), string(unpacked.Descriptor))
	require.Equal(t, m.SHA256, unpacked.SHA256)
	require.FileExists(t, filepath.Join(dir, "manifest.json"))
	described, err := artifact.Describe(t.Context(), artifact.Executable(dir))
	require.NoError(t, err, "it can be run")
	require.Equal(t, m.Plan, described.Plan)
}

// repack makes an archive of files, the names of which are those of even places.
func repack(t *testing.T, files ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	packed := gzip.NewWriter(&out)
	all := tar.NewWriter(packed)
	for i := 0; i < len(files); i += 2 {
		require.NoError(t, all.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}))
		_, err := io.WriteString(all, files[i+1])
		require.NoError(t, err)
	}
	require.NoError(t, all.Close())
	require.NoError(t, packed.Close())
	return out.Bytes()
}

// What is no artifact, or none for here, says so and what to do, and leaves no executable to be run by mistake.
func TestBadArchives(t *testing.T) {
	t.Parallel()
	archive, m := pack(t)
	manifest := func(change func(m *artifact.Manifest)) string {
		changed := m
		change(&changed)
		text, err := json.Marshal(changed)
		require.NoError(t, err)
		return string(text)
	}
	same := manifest(func(*artifact.Manifest) {})
	for name, c := range map[string]struct {
		archive  []byte
		platform string
		want     string
	}{
		"nothing":           {nil, platform, "it is no gzipped file: EOF; 'millrace build' makes one"},
		"something else":    {[]byte("MZ executable"), platform, "it is no gzipped file"},
		"cut off":           {archive[:len(archive)-1000], platform, "it is cut off or damaged"},
		"another platform":  {archive, "plan9/mips", "it is for " + platform + ", and this machine is plan9/mips: build it with GOOS and GOARCH of this one"},
		"another format":    {repack(t, "manifest.json", manifest(func(m *artifact.Manifest) { m.Format = 7 }), "app", "x"), platform, "it has format 7, and this program reads 1"},
		"another checksum":  {repack(t, "manifest.json", same, "app", "x"), platform, "its executable has 1 bytes with checksum 2d71"},
		"contradiction":     {repack(t, "manifest.json", manifest(func(m *artifact.Manifest) { m.Version = "2.0.0" }), "app", "x"), platform, "manifest.json contradicts itself"},
		"no executable":     {repack(t, "manifest.json", same), platform, "it lacks app: EOF"},
		"no manifest":       {repack(t, "app", "x"), platform, "it has app where manifest.json should be"},
		"another file":      {repack(t, "manifest.json", same, "../../etc/passwd", "x"), platform, "it has ../../etc/passwd where app should be"},
		"manifest no JSON":  {repack(t, "manifest.json", "{", "app", "x"), platform, "manifest.json: unexpected end of JSON input"},
		"manifest too long": {repack(t, "manifest.json", string(make([]byte, 17<<20)), "app", "x"), platform, "its manifest.json has 17825792 bytes, and may have 16777216"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := artifact.Unpack(bytes.NewReader(c.archive), filepath.Join(t.TempDir(), "a"), c.platform)
			require.ErrorIs(t, err, artifact.ErrBad)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestDescribe(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	for text, want := range map[string]string{
		"hello":                                "does not say what app it holds: its main function calls artifact.Main",
		`{"specFormat":1}`:                     "its main function calls artifact.Main",
		`{"specFormat":99,"plan":{"app":"a"}}`: "it is of another Millrace, which starts jobs by format 99, and this one does by 1: build it again",
	} {
		t.Setenv(says, text)
		_, err := artifact.Describe(t.Context(), self)
		require.ErrorIs(t, err, artifact.ErrBad)
		require.ErrorContains(t, err, want)
	}
	_, err = artifact.Describe(t.Context(), "/bin/false")
	require.ErrorContains(t, err, "false does not say what app it holds: exit status 1")
}
