package oidc

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"time"

	"golang.org/x/oauth2"
)

// FlowLasts is how long somebody may be at the provider.
const FlowLasts = 10 * time.Minute

// flow is a sign-in that has begun. It is with the browser, which can neither read nor change it, and is of this process alone.
type flow struct {
	State    string // that the provider gives back: it is the browser's that began
	Nonce    string // that the ID token has: it is made for this sign-in
	Verifier string // that the token endpoint wants: the code is of no use without
	Next     string
	Until    time.Time
}

// maxNext is how long the path may be that somebody goes to afterwards, in bytes: a browser keeps 4096 of a cookie. Who wants a longer one goes to /.
const maxNext = 1024

func newFlow(next string, now time.Time) flow {
	if len(next) > maxNext {
		next = "/"
	}
	return flow{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Next: next, Until: now.Add(FlowLasts)}
}

// newSeal makes a seal that nobody else has: sign-ins that were begun before a restart are begun again.
func newSeal() cipher.AEAD {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails, see crypto/rand
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	seal, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // so has an AES block 16
	}
	return seal
}

func (f flow) seal(with cipher.AEAD) string {
	text, err := json.Marshal(f)
	if err != nil {
		panic(err) // texts and a time
	}
	return base64.RawURLEncoding.EncodeToString(with.Seal(nil, nil, text, nil))
}

// openFlow opens what seal has sealed; false when that is something else, or its time is over.
func openFlow(with cipher.AEAD, sealed string, now time.Time) (f flow, ok bool) {
	text, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return f, false
	}
	if text, err = with.Open(nil, nil, text, nil); err != nil || json.Unmarshal(text, &f) != nil || !now.Before(f.Until) {
		return flow{}, false
	}
	return f, true
}
