package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/control"
	"millrace/control/access"
)

var wildcard = regexp.MustCompile(`\{\w+\}`)

// Each route is asked by nobody, by somebody of each role, and with what is no token; on an address that others reach nobody in particular sees nothing.
func TestWhoMayAskWhere(t *testing.T) {
	t.Parallel()
	s, stop := runStack(t, filepath.Join(t.TempDir(), "data"))
	defer stop()
	tokens := map[control.Role]string{}
	for r := control.Viewer; r <= control.Admin; r++ {
		secret, err := s.store.Tokens.Add(t.Context(), control.Token{Name: r.String(), Role: r})
		require.NoError(t, err)
		tokens[r] = secret
	}
	open := map[string]bool{"GET /api/openapi.json": true, "/healthz": true, "/login": true, "/login/oidc": true, "/login/oidc/callback": true, "/logout": true, "/setup": true, "/account": true, "/readyz": true, "/assets/": true, "/iceberg/": true, "/caliper": true, "/message": true, "/caliper/message": true}
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		var reached string
		routes := s.routes()
		for i, r := range routes {
			if r.Least == 0 {
				require.True(t, open[r.Pattern], "%s is open to everybody", r.Pattern)
			}
			routes[i].Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { reached = r.Pattern })
		}
		anonymous := s.cfg.anonymousAt(address)
		mux := access.Config{Find: s.who, Anonymous: anonymous}.Mux(routes)
		ask := func(r access.Route, secret string) int {
			method, path, ok := strings.Cut(r.Pattern, " ")
			if !ok {
				method, path = "POST", r.Pattern
			}
			if r.Shows {
				method = "GET"
			}
			if path == "/" { // which another route is, exactly
				path = "/nothing"
			}
			path = wildcard.ReplaceAllString(strings.TrimSuffix(path, "{$}"), "x")
			req := httptest.NewRequestWithContext(t.Context(), method, path, http.NoBody)
			if secret != "" {
				req.SetBasicAuth("me", secret)
			}
			w := httptest.NewRecorder()
			reached = ""
			mux.ServeHTTP(w, req)
			require.Equal(t, w.Code == 200, reached == r.Pattern, "%s reaches %q and is answered with %d", r.Pattern, reached, w.Code)
			return w.Code
		}
		for _, r := range routes {
			want := http.StatusOK
			if r.Least > 0 && (r.Named || r.Least > anonymous) {
				want = http.StatusUnauthorized
			}
			require.Equal(t, want, ask(r, ""), "%s for nobody at %s", r.Pattern, address)
			if r.Least == 0 {
				continue
			}
			require.Equal(t, http.StatusUnauthorized, ask(r, "mrt_"+strings.Repeat("A", 43)), r.Pattern)
			for role, secret := range tokens {
				want = http.StatusOK
				if role < r.Least {
					want = http.StatusForbidden
				}
				require.Equal(t, want, ask(r, secret), "%s for %s", r.Pattern, role)
			}
			require.Equal(t, http.StatusOK, ask(r, s.secret), r.Pattern)
		}
	}
}

// selfSigned writes a certificate for 127.0.0.1 and its key.
func selfSigned(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	b, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}), 0o600))
	return cert, key
}

// With a certificate other machines are served, by TLS alone, and a renewed certificate is shown without a restart. Commands reach the process all
// the same.
func TestTLS(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data")
	dir, err := openDataDir(path)
	require.NoError(t, err)
	cfg := stoppedConfig()
	certs := t.TempDir()
	cfg.tlsCert, cfg.tlsKey = selfSigned(t, certs, "first")
	cfg.listen, cfg.dir, cfg.logger = "0.0.0.0:0", dir, slog.New(slog.DiscardHandler)
	s, stop := runStackOf(t, cfg)
	defer stop()
	require.True(t, strings.HasPrefix(s.url(), "https://"))
	_, port, err := net.SplitHostPort(s.listener.Addr().String())
	require.NoError(t, err)
	shown := func() string {
		c, err := tls.Dial("tcp", "127.0.0.1:"+port, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec,noctx // it is its own authority
		require.NoError(t, err)
		defer c.Close()
		require.GreaterOrEqual(t, c.ConnectionState().Version, uint16(tls.VersionTLS12))
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	require.Equal(t, "first", shown())
	selfSigned(t, certs, "second")
	require.Eventually(t, func() bool { return shown() == "second" }, 30*time.Second, 50*time.Millisecond)
	require.NoError(t, os.WriteFile(cfg.tlsKey, []byte("half"), 0o600)) // as it is for a moment while both are replaced
	require.Never(t, func() bool { return shown() != "second" }, 1500*time.Millisecond, 100*time.Millisecond)

	secure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // it is its own authority
	defer secure.CloseIdleConnections()
	ask := func(path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://127.0.0.1:"+port+path, http.NoBody)
		require.NoError(t, err)
		res, err := secure.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Equal(t, res.StatusCode == 401, res.Header.Get("WWW-Authenticate") != "")
		return res.StatusCode, string(b)
	}
	status, _ := ask("/healthz")
	require.Equal(t, 200, status)
	status, body := ask("/")
	require.Equal(t, 401, status)
	require.Contains(t, body, "millrace token add --role viewer")
	r, ok := dir.running()
	require.True(t, ok)
	st, err := localClient(r).status(t.Context())
	require.NoError(t, err)
	require.Equal(t, path, st.DataDir)
}

func TestAddressesOfOtherMachines(t *testing.T) {
	t.Parallel()
	for address, says := range map[string]string{
		"0.0.0.0:0":     "--listen 0.0.0.0:0 is not an address of this machine alone, and without TLS only those are served: give --tls-cert and --tls-key, or --insecure-http",
		"10.0.0.1:8420": "--insecure-http if what stands before it has TLS",
		"nonsense":      `--listen "nonsense" is no address: want host:port`,
	} {
		require.ErrorContains(t, checkAddress(address, "--listen"), says)
	}
	require.ErrorContains(t, checkAddress("0.0.0.0:0", "--log-listen"), "what is served there asks nobody who they are: use 127.0.0.1")
	for _, fine := range []string{"127.0.0.1:0", "localhost:1", "[::1]:8420"} {
		require.NoError(t, checkAddress(fine, "--listen"))
	}
	_, err := (&certificateFiles{cert: "none.pem", key: "none.key"}).config()
	require.EqualError(t, err, "--tls-cert none.pem, --tls-key none.key: none.pem: no such file or directory")
}
