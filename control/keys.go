// Package control keeps what operators decide, in SQLite. These are the sensor keys: who may send, and what the items that
// come with a key belong to.
//
// It does not answer sensors (collect) or print keys (cmd).
package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// ErrUnknownKey is matched by the errors for a sensor key, or an id of one, that does not exist or was revoked.
var ErrUnknownKey = errors.New("unknown sensor key")

const (
	// keyPrefix lets people and secret scanners recognise a sensor key.
	keyPrefix = "mrk_"

	// The keys in memory are read again after this, so that one revoked by another process stops working.
	keysFresh = 5 * time.Second

	// For secrets that are not in memory the keys are read again, so that one added by another process works at once, but
	// not more often than this: the secret waits. It bounds what someone who guesses secrets costs and refuses nobody else.
	missInterval = 100 * time.Millisecond
)

// Key is a sensor's right to send: what the items that come with it belong to.
type Key struct {
	ID         string // names the key without giving it away; set by Add
	Account    string
	Env        string
	SourceType string
	Created    time.Time // set by Add
}

// word is what the parts of a key may be: they become names of indices, of directories and of partitions.
var word = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

func (k Key) validate() error {
	for _, part := range []struct{ name, value string }{{"account", k.Account}, {"env", k.Env}, {"source type", k.SourceType}} {
		if part.value == "" {
			return fmt.Errorf("%s is missing: a sensor key belongs to an account, an env and a source type", part.name)
		}
		if !word.MatchString(part.value) {
			return fmt.Errorf("%s %q is not a word: use 1 to 64 letters, digits, _ and -, beginning with a letter or digit", part.name, part.value)
		}
	}
	return nil
}

// Keys keeps sensor keys in a SQLite file that several processes may have open. A key's secret is not in it, only the
// secret's SHA-256: secrets are 256 random bits, so nothing slower is needed. Keys is safe for concurrent use.
type Keys struct {
	db *sql.DB

	reading chan struct{} // holds one token while somebody reads all keys

	mu    sync.Mutex
	all   map[shortHash]hashedKey
	asked time.Time // when the reading that found them began
}

// shortHash is the part of a secret's hash that a key is found by. It is no secret: the key's id spells it.
type shortHash [6]byte

type hashedKey struct {
	hash [sha256.Size]byte
	key  Key
}

// OpenKeys opens the file at path, and makes it when there is none, for its owner alone. A damaged file is an error that says
// so. Close the keys after use.
func OpenKeys(path string) (*Keys, error) {
	// SQLite gives the files that it puts beside this one the same mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("open sensor keys: %w", err)
	}
	pragmas := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(5000)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: pragmas.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open sensor keys %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`CREATE TABLE IF NOT EXISTS sensor_keys (
		id TEXT PRIMARY KEY,
		hash BLOB NOT NULL UNIQUE,
		account TEXT NOT NULL,
		env TEXT NOT NULL,
		source_type TEXT NOT NULL,
		created INTEGER NOT NULL -- microseconds since 1970
	) STRICT`); err != nil {
		return nil, errors.Join(openError(path, err), db.Close())
	}
	// SQLite only finds damage that it comes by. There are few keys, and the check takes no longer than to read them.
	var found string
	if err := db.QueryRow("PRAGMA integrity_check(1)").Scan(&found); err != nil {
		return nil, errors.Join(openError(path, err), db.Close())
	}
	if found != "ok" {
		return nil, errors.Join(openError(path, fmt.Errorf("%w: %s", errDamaged, strings.Join(strings.Fields(found), " "))), db.Close())
	}
	return &Keys{db: db, reading: make(chan struct{}, 1)}, nil
}

var errDamaged = errors.New("the check failed")

func openError(path string, err error) error {
	var coded interface{ Code() int }
	if errors.Is(err, errDamaged) || errors.As(err, &coded) && (coded.Code()&0xff == 11 || coded.Code()&0xff == 26) { // SQLITE_CORRUPT, SQLITE_NOTADB
		return fmt.Errorf("sensor keys %s are damaged: restore the file from a backup: %w", path, err)
	}
	return fmt.Errorf("open sensor keys %s: %w", path, err)
}

// Close closes the file.
func (k *Keys) Close() error { return k.db.Close() }

// Add makes a key for an account, env and source type and returns its secret, which cannot be had again.
func (k *Keys) Add(ctx context.Context, key Key) (secret string, err error) {
	if err := key.validate(); err != nil {
		return "", err
	}
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails, see crypto/rand
	secret = keyPrefix + base64.RawURLEncoding.EncodeToString(random[:])
	hash := sha256.Sum256([]byte(secret))
	_, err = k.db.ExecContext(ctx, `INSERT INTO sensor_keys (id, hash, account, env, source_type, created) VALUES (?, ?, ?, ?, ?, ?)`,
		hex.EncodeToString(hash[:len(shortHash{})]), hash[:], key.Account, key.Env, key.SourceType, time.Now().UnixMicro())
	if err != nil {
		return "", fmt.Errorf("add a sensor key for %s:%s: %w", key.Account, key.Env, err)
	}
	return secret, nil
}

// Lookup returns the key with the given secret, or ErrUnknownKey. A key that another process adds is found at once; one that
// another process revokes is unknown after at most five seconds. Keys are kept in memory: a secret that is known costs no
// look at the file, one that is not may wait up to a tenth of a second.
func (k *Keys) Lookup(ctx context.Context, secret string) (Key, error) {
	if !strings.HasPrefix(secret, keyPrefix) || len(secret) != len(keyPrefix)+base64.RawURLEncoding.EncodedLen(sha256.Size) {
		return Key{}, ErrUnknownKey
	}
	hash := sha256.Sum256([]byte(secret))
	arrived := time.Now()
	key, asked, ok := k.inMemory(hash)
	if ok && arrived.Sub(asked) < keysFresh {
		return key, nil
	}
	if err := k.readSince(ctx, arrived); err != nil {
		return Key{}, fmt.Errorf("look up a sensor key: %w", err)
	}
	if key, _, ok = k.inMemory(hash); !ok {
		return Key{}, ErrUnknownKey
	}
	return key, nil
}

// inMemory returns the key with the given hash, if there is one, and as of when that is so.
func (k *Keys) inMemory(hash [sha256.Size]byte) (key Key, asked time.Time, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	found, ok := k.all[shortHash(hash[:])]
	if ok && subtle.ConstantTimeCompare(found.hash[:], hash[:]) == 1 {
		return found.key, k.asked, true
	}
	return Key{}, k.asked, false
}

// readSince returns when the keys in memory are those that the file had at the given time or later. All who wait for that
// share one reading.
func (k *Keys) readSince(ctx context.Context, since time.Time) error {
	select {
	case k.reading <- struct{}{}:
		defer func() { <-k.reading }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	_, asked, _ := k.inMemory([sha256.Size]byte{})
	if !asked.Before(since) {
		return nil
	}
	if wait := missInterval - time.Since(asked); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	asked = time.Now()
	all, err := k.read(ctx)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all, k.asked = make(map[shortHash]hashedKey, len(all)), asked
	for _, found := range all {
		k.all[shortHash(found.hash[:])] = found
	}
	return nil
}

func (k *Keys) read(ctx context.Context) ([]hashedKey, error) {
	rows, err := k.db.QueryContext(ctx, `SELECT id, hash, account, env, source_type, created FROM sensor_keys ORDER BY created, id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []hashedKey
	for rows.Next() {
		var (
			found   hashedKey
			hash    []byte
			created int64
		)
		if err := rows.Scan(&found.key.ID, &hash, &found.key.Account, &found.key.Env, &found.key.SourceType, &created); err != nil {
			return nil, err
		}
		if copy(found.hash[:], hash) != sha256.Size {
			return nil, fmt.Errorf("the hash of key %s has %d bytes", found.key.ID, len(hash))
		}
		found.key.Created = time.UnixMicro(created).UTC()
		all = append(all, found)
	}
	return all, rows.Err()
}

// List returns all keys, oldest first.
func (k *Keys) List(ctx context.Context) ([]Key, error) {
	all, err := k.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("list sensor keys: %w", err)
	}
	keys := make([]Key, len(all))
	for i := range all {
		keys[i] = all[i].key
	}
	return keys, nil
}

// Revoke ends the key with the given id, or returns ErrUnknownKey. What was sent with it stays.
func (k *Keys) Revoke(ctx context.Context, id string) error {
	result, err := k.db.ExecContext(ctx, `DELETE FROM sensor_keys WHERE id = ?`, id)
	if err != nil {
		return fmt.Errorf("revoke sensor key %s: %w", id, err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return fmt.Errorf("revoke sensor key %s: %w", id, err)
	}
	if n == 0 {
		return fmt.Errorf("%w: there is none with the id %q", ErrUnknownKey, id)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for short, found := range k.all {
		if found.key.ID == id {
			delete(k.all, short)
		}
	}
	return nil
}
