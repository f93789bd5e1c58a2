package eventlog_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"millrace/eventlog"
	"millrace/record"
)

// authority makes a certificate for 127.0.0.1, which is its own authority, and the file of that.
func authority(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	name := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, name
}

// A cluster that wants TLS and SASL takes items from who says what it wants to hear, and an error says what another one was told.
func TestSecurity(t *testing.T) {
	t.Parallel()
	cert, ca := authority(t)
	_, otherCA := authority(t)
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser(mechanism, "ann", "correct"),
				kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}))
			require.NoError(t, err)
			t.Cleanup(cluster.Close)
			good := eventlog.Security{Protocol: "SASL_SSL", Mechanism: mechanism, Username: "ann", Password: "correct", CA: ca}
			open := func(change func(*eventlog.Security)) (*eventlog.Log, error) {
				s := good
				change(&s)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				return eventlog.Open(ctx, eventlog.Config{Brokers: cluster.ListenAddrs(), Security: s})
			}
			log, err := open(func(*eventlog.Security) {})
			require.NoError(t, err)
			require.NoError(t, log.Append(t.Context(), []record.Item{{Account: "a", Env: "e", SourceType: "s", Kind: record.Event, ID: "urn:1", Bytes: []byte("{}")}}))
			ends, err := log.Ends(t.Context())
			require.NoError(t, err)
			n := int64(0)
			for _, end := range ends {
				n += end
			}
			require.EqualValues(t, 1, n)
			require.NoError(t, log.Close())

			for want, change := range map[string]func(*eventlog.Security){
				"does it talk SASL_SSL, with " + mechanism + ", to ann with that password?": func(s *eventlog.Security) { s.Password = "wrong" },
				"unknown authority": func(s *eventlog.Security) { s.CA = otherCA },
				"broker closed":     func(s *eventlog.Security) { *s = eventlog.Security{} },
				"no such file":      func(s *eventlog.Security) { s.CA = "/nowhere/ca.pem" },
			} {
				_, err := open(change)
				require.ErrorContains(t, err, want)
			}
		})
	}
}

func TestSecurityIsChecked(t *testing.T) {
	t.Parallel()
	require.NoError(t, eventlog.Security{}.Check())
	require.NoError(t, eventlog.Security{Protocol: "SSL"}.Check())
	for want, s := range map[string]eventlog.Security{
		`there is no security protocol "TLS"; there are PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL`: {Protocol: "TLS"},
		"certificates are for SSL or SASL_SSL, and the security protocol is PLAINTEXT":            {CA: "ca.pem"},
		"a certificate and its key belong together":                                               {Protocol: "SSL", Cert: "c.pem"},
		"a SASL mechanism and username are for SASL_PLAINTEXT or SASL_SSL":                        {Protocol: "SSL", Username: "ann"},
		`there is no SASL mechanism "GSSAPI"; there are PLAIN, SCRAM-SHA-256, SCRAM-SHA-512`:      {Protocol: "SASL_SSL", Mechanism: "GSSAPI"},
		"SASL needs a username and a password":                                                    {Protocol: "SASL_SSL", Mechanism: "PLAIN", Username: "ann"},
	} {
		require.ErrorContains(t, s.Check(), want)
	}
}
