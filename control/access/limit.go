package access

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// Limit bounds how often somebody may try to sign in. It is by address and by name: neither guesses many passwords of one person, nor one password
// of many. What it holds is bounded too.
//
// A try that succeeds gives back what it took.
type Limit struct {
	Tries int           // at once
	Every time.Duration // one more after each

	mu   sync.Mutex
	full map[string]time.Time // when all tries of a key are there again
}

// mostKeys is how many keys a Limit remembers. With more than those that still count it forgets all, rather than to refuse everybody.
const mostKeys = 10_000

// Take takes a try of each key, unless one has none left: then it takes none, and returns how long that lasts.
func (l *Limit) Take(now time.Time, keys ...string) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full == nil || len(l.full) >= mostKeys {
		kept := map[string]time.Time{}
		for key, at := range l.full {
			if at.After(now) {
				kept[key] = at
			}
		}
		if len(kept) >= mostKeys {
			kept = map[string]time.Time{}
		}
		l.full = kept
	}
	most := time.Duration(l.Tries) * l.Every
	for _, key := range keys {
		if over := l.after(now, key).Sub(now) - most; over > 0 {
			wait = max(wait, over)
		}
	}
	if wait > 0 {
		return wait
	}
	for _, key := range keys {
		l.full[key] = l.after(now, key)
	}
	return 0
}

// after is when all tries of a key would be there again if it took one now.
func (l *Limit) after(now time.Time, key string) time.Time {
	at := l.full[key]
	if at.Before(now) {
		at = now
	}
	return at.Add(l.Every)
}

// Give gives back a try of each key.
func (l *Limit) Give(keys ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		if at, ok := l.full[key]; ok {
			l.full[key] = at.Add(-l.Every)
		}
	}
}

// Address is where a request comes from, for a Limit: of IPv6 the network that one household has.
func Address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	ip := net.ParseIP(host)
	if ip == nil || ip.To4() != nil {
		return host
	}
	return ip.Mask(net.CIDRMask(64, 128)).String()
}
