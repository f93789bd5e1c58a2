package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// ErrUnknownKey is matched by the errors for a sensor key, or an id of one, that does not exist or was revoked.
var ErrUnknownKey = errors.New("unknown sensor key")

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
			return invalid{fmt.Errorf("%s is missing: a sensor key belongs to an account, an env and a source type", part.name)}
		}
		if !word.MatchString(part.value) {
			return invalid{fmt.Errorf("%s %q is not a word: use 1 to 64 letters, digits, _ and -, beginning with a letter or digit", part.name, part.value)}
		}
	}
	return nil
}

// Keys keeps sensor keys. A key's secret is not in the file, only the secret's hash.
type Keys struct {
	db      *sql.DB
	secrets *secrets[Key]
}

func newKeys(db *sql.DB) *Keys {
	k := &Keys{db: db}
	k.secrets = newSecrets("mrk_", k.read)
	return k
}

// Add makes a key for an account, env and source type and returns its secret, which cannot be had again. The error matches ErrInvalid if there can be no such key.
func (k *Keys) Add(ctx context.Context, key Key) (secret string, err error) {
	if err := key.validate(); err != nil {
		return "", err
	}
	secret, id, hash := k.secrets.create()
	_, err = k.db.ExecContext(ctx, `INSERT INTO sensor_keys (id, hash, account, env, source_type, created) VALUES (?, ?, ?, ?, ?, ?)`,
		id, hash[:], key.Account, key.Env, key.SourceType, time.Now().UnixMicro())
	if err != nil {
		return "", fmt.Errorf("add a sensor key for %s:%s: %w", key.Account, key.Env, err)
	}
	return secret, nil
}

// Lookup returns the key with the given secret, or ErrUnknownKey. A key that another process adds is found at once; one that
// another process revokes is unknown after at most five seconds. Keys are kept in memory: a secret that is known costs no
// look at the file, one that is not may wait up to a tenth of a second.
func (k *Keys) Lookup(ctx context.Context, secret string) (Key, error) {
	key, ok, err := k.secrets.lookup(ctx, secret)
	if err != nil {
		return Key{}, fmt.Errorf("look up a sensor key: %w", err)
	}
	if !ok {
		return Key{}, ErrUnknownKey
	}
	return key, nil
}

func (k *Keys) read(ctx context.Context) ([]hashed[Key], error) {
	rows, err := k.db.QueryContext(ctx, `SELECT id, hash, account, env, source_type, created FROM sensor_keys ORDER BY created, id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []hashed[Key]
	for rows.Next() {
		var (
			found   hashed[Key]
			hash    []byte
			created int64
		)
		key := &found.value
		if err := rows.Scan(&key.ID, &hash, &key.Account, &key.Env, &key.SourceType, &created); err != nil {
			return nil, err
		}
		if err := found.setHash("key "+key.ID, hash); err != nil {
			return nil, err
		}
		key.Created = time.UnixMicro(created).UTC()
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
		keys[i] = all[i].value
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
	k.secrets.forget(id)
	return nil
}
