// Package laketest puts the lakes of tests where the run wants them: on the local disk or, when MILLRACE_S3 is the URL of an S3 server,
// in its bucket lake; and their tables in catalog.db or, when MILLRACE_ICEBERG_REST is the URL of an Iceberg REST catalogue, in a namespace
// of that. The tests are the same.
package laketest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/stretchr/testify/require"
	"github.com/zeebo/xxh3"

	"millrace/lake"
)

// OnS3 reports whether lakes are on a server. scripts/servers/s3.sh starts one; its key is in the environment as
// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
func OnS3() bool { return os.Getenv("MILLRACE_S3") != "" }

// OnREST reports whether the tables of lakes are listed by an Iceberg REST catalogue. scripts/servers/iceberg-rest.sh starts one.
func OnREST() bool { return os.Getenv("MILLRACE_ICEBERG_REST") != "" }

const bucket = "lake"

// In is the configuration of the one lake whose catalogue is in dir.
func In(dir string) lake.Config {
	cfg := lake.Config{Dir: dir}
	if OnS3() {
		cfg.Warehouse = "s3://" + bucket + "/" + prefix(dir)
		cfg.S3.Endpoint = os.Getenv("MILLRACE_S3")
	}
	if OnREST() {
		cfg.Catalog = lake.REST{URI: os.Getenv("MILLRACE_ICEBERG_REST"), Namespace: prefix(dir)}
	}
	return cfg
}

func prefix(dir string) string { return fmt.Sprintf("test-%016x", xxh3.HashString(dir)) }

func client(t testing.TB) *minio.Client {
	t.Helper()
	u, err := url.Parse(os.Getenv("MILLRACE_S3"))
	require.NoError(t, err)
	c, err := minio.New(u.Host, &minio.Options{Creds: credentials.NewEnvAWS(), Region: "us-east-1"})
	require.NoError(t, err)
	return c
}

// Files are the names of the warehouse's files, below it, of the lake in dir.
func Files(t testing.TB, dir string) (names []string) {
	t.Helper()
	if OnS3() {
		for info := range client(t).ListObjects(context.Background(), bucket, minio.ListObjectsOptions{Prefix: prefix(dir) + "/", Recursive: true}) {
			require.NoError(t, info.Err)
			names = append(names, strings.TrimPrefix(info.Key, prefix(dir)+"/"))
		}
		return names
	}
	base := filepath.Join(dir, "warehouse")
	require.NoError(t, filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, err := filepath.Rel(base, path)
			names = append(names, filepath.ToSlash(name))
			return err
		}
		return err
	}))
	return names
}

func content(t testing.TB, key string) []byte {
	t.Helper()
	object, err := client(t).GetObject(context.Background(), bucket, key, minio.GetObjectOptions{})
	require.NoError(t, err)
	content, err := io.ReadAll(object)
	require.NoError(t, err)
	return content
}

// Local is the path of a file that lake.Table.Files has named: its own, or that of a copy.
func Local(t testing.TB, name string) string {
	t.Helper()
	if !OnS3() {
		return name
	}
	copied := filepath.Join(t.TempDir(), filepath.Base(name))
	require.NoError(t, os.WriteFile(copied, content(t, strings.TrimPrefix(name, "s3://"+bucket+"/")), 0o600))
	return copied
}

// Copy is a folder with the files of dir's warehouse: its own, or a copy.
func Copy(t testing.TB, dir string) string {
	t.Helper()
	if !OnS3() {
		return filepath.Join(dir, "warehouse")
	}
	copied := t.TempDir()
	for _, name := range Files(t, dir) {
		at := filepath.Join(copied, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o755))
		require.NoError(t, os.WriteFile(at, content(t, prefix(dir)+"/"+name), 0o600))
	}
	return copied
}

// Read is the content of a file that Files has named.
func Read(t testing.TB, dir, name string) []byte {
	t.Helper()
	if OnS3() {
		return content(t, prefix(dir)+"/"+name)
	}
	b, err := os.ReadFile(Place(dir, name))
	require.NoError(t, err)
	return b
}

// Replace is what a broken disk does: it gives a file that Files has named another content.
func Replace(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	if OnS3() {
		_, err := client(t).PutObject(context.Background(), bucket, prefix(dir)+"/"+name, bytes.NewReader(b), int64(len(b)), minio.PutObjectOptions{})
		require.NoError(t, err)
		return
	}
	require.NoError(t, os.WriteFile(Place(dir, name), b, 0o600))
}

// Cut takes away the second half of a file that Files has named.
func Cut(t testing.TB, dir, name string) {
	t.Helper()
	b := Read(t, dir, name)
	Replace(t, dir, name, b[:len(b)/2])
}

// Place is how messages name a file or folder of the warehouse.
func Place(dir, name string) string {
	if OnS3() {
		return In(dir).Warehouse + "/" + name
	}
	return filepath.Join(dir, "warehouse", filepath.FromSlash(name))
}

// Remove removes a file of the warehouse.
func Remove(t testing.TB, dir, name string) {
	t.Helper()
	if OnS3() {
		require.NoError(t, client(t).RemoveObject(context.Background(), bucket, prefix(dir)+"/"+name, minio.RemoveObjectOptions{}))
		return
	}
	require.NoError(t, os.Remove(filepath.Join(dir, "warehouse", filepath.FromSlash(name))))
}
