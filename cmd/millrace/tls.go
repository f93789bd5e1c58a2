package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// certificateFiles are a certificate and its key in files, which are read again when they have changed: a renewal needs no restart.
type certificateFiles struct {
	cert, key string

	mu     sync.Mutex
	looked time.Time
	stamp  [2]time.Time // when the files were changed that loaded is of
	loaded *tls.Certificate
}

// lookAgain is how often the files are looked at, at most.
const lookAgain = time.Second

// config is for a server that shows the certificate.
func (c *certificateFiles) config() (*tls.Config, error) {
	if _, err := c.get(nil); err != nil {
		return nil, usagef("--tls-cert %s, --tls-key %s: %w", c.cert, c.key, err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"}}, nil
}

// get returns the certificate. While new files cannot be read, or do not belong together yet, it is that of before.
func (c *certificateFiles) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded != nil && time.Since(c.looked) < lookAgain {
		return c.loaded, nil
	}
	c.looked = time.Now()
	var stamp [2]time.Time
	for i, name := range []string{c.cert, c.key} {
		info, err := os.Stat(name)
		if err != nil {
			return c.loaded, c.unless(fmt.Errorf("%s: %w", name, cause(err)))
		}
		stamp[i] = info.ModTime()
	}
	if c.loaded != nil && stamp == c.stamp {
		return c.loaded, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return c.loaded, c.unless(err)
	}
	c.loaded, c.stamp = &pair, stamp
	return c.loaded, nil
}

// unless is err when there is no certificate yet.
func (c *certificateFiles) unless(err error) error {
	if c.loaded != nil {
		return nil
	}
	return err
}
