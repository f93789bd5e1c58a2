package lake

import (
	"context"
	"fmt"
	"io/fs"
	"net/url"
	"sync"

	iceio "github.com/apache/iceberg-go/io"
)

// fileSystem is where the files of a lake's tables are. The other files of the package know no paths, only locations: URIs, as the
// catalogue and the manifests record them.
type fileSystem interface {
	iceio.ReadFileIO
	iceio.WriteFileIO
	iceio.StatIO

	// newFile makes a file, which is durable once its Close returns nil and syncDirs has been called.
	newFile(location string) (fileWriter, error)

	// syncDirs makes the names of all files written so far durable.
	syncDirs() error

	// walk calls fn with the location and description of each file below a location. A missing folder has no files.
	walk(location string, fn func(location string, info fs.FileInfo) error) error

	// removeDirs removes a folder that holds no files any more, and those in it.
	removeDirs(location string) error

	// readable is a location as people and other programs name it: the path of a local file, the URL of any other.
	readable(location string) string
}

// fileWriter is a file being written.
type fileWriter interface {
	iceio.FileWriter

	written() int64
	abandon() // removes it, instead of Close or after it failed. What cannot be removed, Sweep will
}

// fault is asked before each change of a file, and its error prevents the change. Tests have it; otherwise it is nil.
type fault func(op, path string) error

func (f fault) check(op, path string) error {
	if f == nil {
		return nil
	}
	return f(op, path)
}

// fsProperty is the catalogue property by which iceberg-go's calls find the file system of their lake.
const fsProperty = "millrace.fs"

// openFS holds the file system of each open lake by its number, as text. iceberg-go makes file systems from a location and
// properties alone, so the instance has to be found by name.
var (
	openMu   sync.Mutex
	openFS   = map[string]fileSystem{}
	openNext int
)

// The stock local file system of iceberg-go does not sync what it writes: a power cut after a commit would leave a
// catalogue that names files of no content. Its stock S3 brings every cloud's client.
func init() {
	iceio.Unregister("file")
	for _, scheme := range []string{"file", "s3"} {
		iceio.Register(scheme, func(_ context.Context, location *url.URL, props map[string]string) (iceio.IO, error) {
			openMu.Lock()
			defer openMu.Unlock()
			if fsys := openFS[props[fsProperty]]; fsys != nil {
				return fsys, nil
			}
			return nil, fmt.Errorf("%s is of a lake that is not open", location)
		})
	}
}

// nameFileSystem returns a name for a file system to register.
func nameFileSystem() string {
	openMu.Lock()
	defer openMu.Unlock()
	openNext++
	return fmt.Sprint(openNext)
}

func register(name string, fsys fileSystem) {
	openMu.Lock()
	defer openMu.Unlock()
	openFS[name] = fsys
}

func forgetFileSystem(name string) {
	openMu.Lock()
	defer openMu.Unlock()
	delete(openFS, name)
}
