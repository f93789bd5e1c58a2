package lake

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	iceio "github.com/apache/iceberg-go/io"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"millrace/internal/retry"
)

// ErrUnavailable means that the server that has a lake's files does not answer, or answers that it cannot at the moment. The same
// call may succeed later.
var ErrUnavailable = errors.New("the lake's server is not available")

// S3 says how the server of an s3:// warehouse is reached. What is empty is what the catalogue remembers of the last writer.
//
// Credentials are the environment's: AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY and, if there is one, AWS_SESSION_TOKEN; else the
// shared credentials file; else, on AWS itself, the role of the machine.
type S3 struct {
	Endpoint string `json:"endpoint,omitempty"` // http://host:port or https://host; default: that of AWS
	Region   string `json:"region,omitempty"`   // default us-east-1
}

const (
	awsEndpoint    = "https://s3.amazonaws.com"
	requestTries   = 4
	requestTimeout = 5 * time.Minute  // with the body: a file of some hundred MB
	answerTimeout  = 20 * time.Second // until an answer begins
	wholeFile      = 4 << 20          // bytes of a file that is fetched at once, whatever is read of it
)

// s3Files is a bucket. An object is there whole, and durable, once its PUT is answered, so there is nothing to sync; a file that is being
// written waits on the local disk until then.
type s3Files struct {
	client *minio.Core
	name   string // of the server, for messages
	bucket string
	temp   string // directory of files being written
	fault  fault
}

func newS3Files(cfg S3, bucket, temp string, fault fault) (*s3Files, error) {
	if cfg.Endpoint == "" {
		cfg.Endpoint = awsEndpoint
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("S3 endpoint %q is no URL such as http://127.0.0.1:9000 or https://s3.example.org", cfg.Endpoint)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = answerTimeout
	providers := []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}
	if cfg.Endpoint == awsEndpoint {
		providers = append(providers, &credentials.IAM{})
	}
	client, err := minio.NewCore(u.Host, &minio.Options{
		Creds: credentials.NewChainCredentials(providers), Secure: u.Scheme == "https", Region: cfg.Region,
		Transport: transport, MaxRetries: 1, // internal/retry does it
	})
	if err != nil {
		return nil, fmt.Errorf("S3 endpoint %s: %w", cfg.Endpoint, err)
	}
	return &s3Files{client: client, name: cfg.Endpoint, bucket: bucket, temp: temp, fault: fault}, nil
}

// key is the object that has a location.
func (f *s3Files) key(location string) string {
	return strings.TrimPrefix(location, "s3://"+f.bucket+"/")
}

// do does a request, again when the server did not answer or was busy, for a moment: who can wait longer looks for ErrUnavailable.
func (f *s3Files) do(what, location string, request func(context.Context) error) error {
	policy := retry.Policy{Min: 50 * time.Millisecond, Max: time.Second, Attempts: requestTries}
	err := retry.Do(context.Background(), policy, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		err := request(ctx)
		if err != nil && !passes(err) {
			return retry.Permanent(err)
		}
		return err
	})
	if err == nil {
		return nil
	}
	var answer minio.ErrorResponse
	isAnswer := errors.As(err, &answer)
	switch {
	case passes(err):
		err = fmt.Errorf("%w: %s: %w", ErrUnavailable, f.name, err)
	case isAnswer && answer.Code == minio.NoSuchKey, isAnswer && answer.StatusCode == http.StatusNotFound && answer.Code != minio.NoSuchBucket:
		err = fs.ErrNotExist
	case isAnswer && answer.StatusCode == http.StatusPreconditionFailed:
		err = fs.ErrExist
	case isAnswer && answer.Code == minio.NoSuchBucket:
		err = fmt.Errorf("%s has no bucket %s: make it, or name another", f.name, f.bucket)
	case isAnswer && (answer.StatusCode == http.StatusForbidden || answer.StatusCode == http.StatusUnauthorized):
		err = fmt.Errorf("%s refuses: %w: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, the region, and what the key may do", f.name, err)
	}
	return &fs.PathError{Op: what, Path: location, Err: err}
}

// passes reports an error that may not come again: no answer, or one that says so.
func passes(err error) bool {
	var answer minio.ErrorResponse
	if errors.As(err, &answer) {
		return answer.StatusCode >= 500 || answer.StatusCode == http.StatusConflict || answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode == http.StatusRequestTimeout
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, context.DeadlineExceeded)
}

// Stat describes a file.
func (f *s3Files) Stat(location string) (fs.FileInfo, error) {
	var info minio.ObjectInfo
	err := f.do("stat", location, func(ctx context.Context) (err error) {
		info, err = f.client.StatObject(ctx, f.bucket, f.key(location), minio.StatObjectOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	return objectInfo{info}, nil
}

// Open opens a file for reading.
func (f *s3Files) Open(location string) (iceio.File, error) {
	info, err := f.Stat(location)
	if err != nil {
		return nil, err
	}
	o := &object{files: f, location: location, info: info}
	o.content = sync.OnceValues(func() ([]byte, error) {
		content := make([]byte, info.Size())
		if len(content) == 0 {
			return nil, nil
		}
		return content, f.readRange(location, content, 0)
	})
	o.SectionReader = io.NewSectionReader(objectReader{o}, 0, info.Size())
	return o, nil
}

// ReadFile reads a whole file.
func (f *s3Files) ReadFile(location string) (content []byte, err error) {
	err = f.do("read", location, func(ctx context.Context) error {
		body, _, _, err := f.client.GetObject(ctx, f.bucket, f.key(location), minio.GetObjectOptions{})
		if err != nil {
			return err
		}
		content, err = io.ReadAll(body)
		return errors.Join(err, body.Close())
	})
	return content, err
}

// readRange fills p with the bytes from off on.
func (f *s3Files) readRange(location string, p []byte, off int64) error {
	return f.do("read", location, func(ctx context.Context) error {
		var opts minio.GetObjectOptions
		if err := opts.SetRange(off, off+int64(len(p))-1); err != nil {
			return err
		}
		body, _, _, err := f.client.GetObject(ctx, f.bucket, f.key(location), opts)
		if err != nil {
			return err
		}
		_, err = io.ReadFull(body, p)
		return errors.Join(err, body.Close())
	})
}

// Remove removes a file; it is no error if there is none.
func (f *s3Files) Remove(location string) error {
	if err := f.fault.check("remove", location); err != nil {
		return err
	}
	return f.do("remove", location, func(ctx context.Context) error {
		return f.client.RemoveObject(ctx, f.bucket, f.key(location), minio.RemoveObjectOptions{})
	})
}

// create stores a whole file unless there is one: of several that try at once, one does. The error matches fs.ErrExist for the others, and
// for one that has done it without being told.
func (f *s3Files) create(location string, content []byte) error {
	if err := f.fault.check("create", location); err != nil {
		return err
	}
	opts := minio.PutObjectOptions{}
	opts.SetMatchETagExcept("*")
	return f.putWith(opts, location, bytes.NewReader(content), int64(len(content)))
}

// put stores a whole file.
func (f *s3Files) put(location string, content io.ReadSeeker, size int64) error {
	return f.putWith(minio.PutObjectOptions{}, location, content, size)
}

// putWith puts an object whole. Never in parts: those of an upload that a crash ended would stay, unseen.
func (f *s3Files) putWith(opts minio.PutObjectOptions, location string, content io.ReadSeeker, size int64) error {
	opts.ContentType, opts.DisableMultipart = "application/octet-stream", true
	if err := f.fault.check("sync", location); err != nil {
		return err
	}
	return f.do("write", location, func(ctx context.Context) error {
		if _, err := content.Seek(0, io.SeekStart); err != nil {
			return err
		}
		_, err := f.client.Client.PutObject(ctx, f.bucket, f.key(location), content, size, opts)
		return err
	})
}

// WriteFile writes a whole file durably.
func (f *s3Files) WriteFile(location string, content []byte) error {
	if err := f.fault.check("create", location); err != nil {
		return err
	}
	return f.put(location, bytes.NewReader(content), int64(len(content)))
}

// Create is newFile, for iceberg-go.
func (f *s3Files) Create(location string) (iceio.FileWriter, error) { return f.newFile(location) }

// newFile makes a file on the local disk, without a name there, that Close uploads.
func (f *s3Files) newFile(location string) (fileWriter, error) {
	if err := f.fault.check("create", location); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(f.temp, ".upload-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &upload{files: f, location: location, file: file, buf: bufio.NewWriterSize(file, 64<<10)}, nil
}

func (*s3Files) syncDirs() error { return nil }

func (*s3Files) readable(location string) string { return location }

func (f *s3Files) walk(location string, fn func(location string, info fs.FileInfo) error) error {
	prefix, from := strings.TrimSuffix(f.key(location), "/")+"/", ""
	for {
		var page minio.ListBucketV2Result
		err := f.do("list", location, func(context.Context) (err error) {
			page, err = f.client.ListObjectsV2(f.bucket, prefix, "", from, "", 1000)
			return err
		})
		if err != nil {
			return err
		}
		for _, info := range page.Contents {
			if err := fn("s3://"+f.bucket+"/"+info.Key, objectInfo{info}); err != nil {
				return err
			}
		}
		if from = page.NextContinuationToken; !page.IsTruncated {
			return nil
		}
	}
}

// removeDirs does nothing: a bucket has no folders.
func (f *s3Files) removeDirs(string) error { return nil }

// upload is a file that is being written.
type upload struct {
	files    *s3Files
	location string
	file     *os.File
	buf      *bufio.Writer
	n        int64
}

func (w *upload) Write(p []byte) (int, error) {
	n, err := w.buf.Write(p)
	w.n += int64(n)
	return n, err
}

func (w *upload) ReadFrom(r io.Reader) (int64, error) {
	n, err := w.buf.ReadFrom(r)
	w.n += n
	return n, err
}

func (w *upload) written() int64 { return w.n }

// Close makes the content durable.
func (w *upload) Close() error {
	err := w.buf.Flush()
	if err == nil {
		err = w.files.put(w.location, w.file, w.n)
	}
	return errors.Join(err, w.file.Close())
}

// An upload whose outcome is not known is left to Sweep too.
func (w *upload) abandon() { _ = w.file.Close() }

// object is a file that is being read.
type object struct {
	*io.SectionReader

	files    *s3Files
	location string
	info     fs.FileInfo
	content  func() ([]byte, error) // of a small file, which is fetched at the first call
}

func (o *object) Stat() (fs.FileInfo, error) { return o.info, nil }
func (*object) Close() error                 { return nil }

// objectReader reads an object at any place.
type objectReader struct{ o *object }

func (r objectReader) ReadAt(p []byte, off int64) (int, error) {
	o := r.o
	size := o.info.Size()
	if off >= size {
		return 0, io.EOF
	}
	short := int64(len(p)) > size-off
	if short {
		p = p[:size-off]
	}
	if size <= wholeFile {
		whole, err := o.content()
		if err != nil {
			return 0, err
		}
		copy(p, whole[off:])
	} else if err := o.files.readRange(o.location, p, off); err != nil {
		return 0, err
	}
	if short {
		return len(p), io.EOF
	}
	return len(p), nil
}

// objectInfo is an object as a file.
type objectInfo struct{ minio.ObjectInfo }

func (i objectInfo) Name() string       { return path.Base(i.Key) }
func (i objectInfo) Size() int64        { return i.ObjectInfo.Size }
func (i objectInfo) Mode() fs.FileMode  { return 0o444 }
func (i objectInfo) ModTime() time.Time { return i.LastModified }
func (i objectInfo) IsDir() bool        { return false }
func (i objectInfo) Sys() any           { return i.ObjectInfo }
