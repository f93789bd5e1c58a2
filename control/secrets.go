package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	// What is in memory is read again after this, so that a secret revoked by another process stops working.
	secretsFresh = 5 * time.Second

	// For secrets that are not in memory all are read again, so that one added by another process works at once, but not more
	// often than this: the secret waits. It bounds what someone who guesses secrets costs and refuses nobody else.
	missInterval = 100 * time.Millisecond
)

// secrets finds what belongs to a secret. Of a secret only the SHA-256 is kept: it is 256 random bits, so nothing slower is needed.
// It is safe for concurrent use.
type secrets[T any] struct {
	prefix  string                                     // lets people and secret scanners recognise a secret
	read    func(context.Context) ([]hashed[T], error) // all, from the file
	reading chan struct{}                              // holds one token while somebody reads all

	mu    sync.Mutex
	all   map[shortHash]hashed[T]
	asked time.Time // when the reading that found them began
}

// shortHash is the part of a secret's hash that it is found by. It is no secret: its id spells it.
type shortHash [6]byte

// hashed is what belongs to the secret of a hash.
type hashed[T any] struct {
	hash  [sha256.Size]byte
	value T
}

func newSecrets[T any](prefix string, read func(context.Context) ([]hashed[T], error)) *secrets[T] {
	return &secrets[T]{prefix: prefix, read: read, reading: make(chan struct{}, 1)}
}

// IDOf is the id of the key, or token, that a secret is of.
func IDOf(secret string) string {
	hash := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(hash[:len(shortHash{})])
}

// create makes a secret. Its id names it without giving it away.
func (s *secrets[T]) create() (secret, id string, hash [sha256.Size]byte) {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails, see crypto/rand
	secret = s.prefix + base64.RawURLEncoding.EncodeToString(random[:])
	hash = sha256.Sum256([]byte(secret))
	return secret, IDOf(secret), hash
}

// lookup finds what belongs to a secret; false when nothing does. What another process adds is found at once; what another
// process revokes, for at most five seconds more. A secret that is known costs no look at the file, one that is not may wait
// up to a tenth of a second.
func (s *secrets[T]) lookup(ctx context.Context, secret string) (value T, ok bool, err error) {
	if !strings.HasPrefix(secret, s.prefix) || len(secret) != len(s.prefix)+base64.RawURLEncoding.EncodedLen(sha256.Size) {
		return value, false, nil
	}
	hash := sha256.Sum256([]byte(secret))
	arrived := time.Now()
	value, asked, ok := s.inMemory(hash)
	if ok && arrived.Sub(asked) < secretsFresh {
		return value, true, nil
	}
	if err := s.readSince(ctx, arrived); err != nil {
		return value, false, err
	}
	value, _, ok = s.inMemory(hash)
	return value, ok, nil
}

// inMemory returns what belongs to the given hash, if there is something, and as of when that is so.
func (s *secrets[T]) inMemory(hash [sha256.Size]byte) (value T, asked time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.all[shortHash(hash[:])]
	if ok && subtle.ConstantTimeCompare(found.hash[:], hash[:]) == 1 {
		return found.value, s.asked, true
	}
	return value, s.asked, false
}

// readSince returns when what is in memory is what the file had at the given time or later. All who wait for that share one
// reading.
func (s *secrets[T]) readSince(ctx context.Context, since time.Time) error {
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	_, asked, _ := s.inMemory([sha256.Size]byte{})
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
	all, err := s.read(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all, s.asked = make(map[shortHash]hashed[T], len(all)), asked
	for _, found := range all {
		s.all[shortHash(found.hash[:])] = found
	}
	return nil
}

// forget ends what is kept in memory of an id.
func (s *secrets[T]) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for short := range s.all {
		if hex.EncodeToString(short[:]) == id {
			delete(s.all, short)
		}
	}
}

// forgetAll ends what is kept in memory.
func (s *secrets[T]) forgetAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all, s.asked = nil, time.Time{}
}

// setHash is the hash that a row has.
func (h *hashed[T]) setHash(id string, hash []byte) error {
	if copy(h.hash[:], hash) != sha256.Size {
		return fmt.Errorf("the hash of %s has %d bytes", id, len(hash))
	}
	return nil
}
