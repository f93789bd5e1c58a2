package control

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// What a password must have: length alone, as NIST SP 800-63B says.
const (
	leastPassword = 10   // characters
	mostPassword  = 1024 // bytes
)

// cost is what a hash of argon2id costs.
type cost struct {
	memory  uint32 // KiB
	time    uint32
	threads uint8
}

// argon2idCost is the least that OWASP's cheat sheet on storing passwords recommends. A hash with another one is made anew when its password is shown.
var argon2idCost = cost{memory: 19 * 1024, time: 2, threads: 1}

const (
	saltBytes = 16
	hashBytes = 32
)

// hashing bounds how many hashes are made at once: each takes argon2idCost.memory.
var hashing = make(chan struct{}, 2)

// checkPassword returns an error unless a password may be one.
func checkPassword(password string) error {
	switch {
	case len([]rune(password)) < leastPassword:
		return invalid{fmt.Errorf("%w: a password has %d characters or more", ErrRefused, leastPassword)}
	case len(password) > mostPassword:
		return invalid{fmt.Errorf("%w: a password has %d bytes or less", ErrRefused, mostPassword)}
	}
	return nil
}

// hashPassword hashes a password with a new salt: $argon2id$v=19$m=19456,t=2,p=1$salt$hash.
func hashPassword(password string) string {
	var salt [saltBytes]byte
	_, _ = rand.Read(salt[:]) // never fails, see crypto/rand
	return encodeHash(argon2idCost, salt[:], argon2id(password, salt[:], argon2idCost, hashBytes))
}

func argon2id(password string, salt []byte, c cost, length uint32) []byte {
	hashing <- struct{}{}
	defer func() { <-hashing }()
	return argon2.IDKey([]byte(password), salt, c.time, c.memory, c.threads, length)
}

var phc = base64.RawStdEncoding

func encodeHash(c cost, salt, hash []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.memory, c.time, c.threads, phc.EncodeToString(salt), phc.EncodeToString(hash))
}

var errHash = errors.New("it is no argon2id hash in the PHC string format that this program can use")

// decodeHash reads what encodeHash wrote, or another program that keeps to the format and to sane costs.
func decodeHash(text string) (c cost, salt, hash []byte, err error) {
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return c, nil, nil, errHash
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &c.memory, &c.time, &c.threads); err != nil || n != 3 || encodeCost(c) != parts[3] {
		return c, nil, nil, errHash
	}
	salt, saltErr := phc.DecodeString(parts[4])
	hash, hashErr := phc.DecodeString(parts[5])
	if errors.Join(saltErr, hashErr) != nil || c.memory > 1<<20 || c.time < 1 || c.time > 100 || c.threads < 1 || len(salt) < 8 || len(hash) < 16 || len(hash) > 64 {
		return c, nil, nil, errHash
	}
	return c, salt, hash, nil
}

func encodeCost(c cost) string { return fmt.Sprintf("m=%d,t=%d,p=%d", c.memory, c.time, c.threads) }

// matches reports whether a password is that of a hash, and whether the hash should be made anew.
func matches(password, text string) (ok, old bool, err error) {
	c, salt, hash, err := decodeHash(text)
	if err != nil {
		return false, false, err
	}
	got := argon2id(password, salt, c, uint32(len(hash))) //nolint:gosec // 16 to 64
	return subtle.ConstantTimeCompare(got, hash) == 1, c != argon2idCost, nil
}

// nobody is the hash that a password is compared with when nobody has the name: that takes as long as for somebody.
var nobody = encodeHash(argon2idCost, make([]byte, saltBytes), make([]byte, hashBytes))
