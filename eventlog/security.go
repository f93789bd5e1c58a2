package eventlog

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Security is how a cluster wants to be talked to, in the words of Kafka's clients. The zero value is PLAINTEXT.
type Security struct {
	Protocol  string `json:"protocol,omitempty"`  // PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL
	Mechanism string `json:"mechanism,omitempty"` // of SASL: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	Username  string `json:"username,omitempty"`
	Password  string `json:"-"` // it is not kept

	// Files in PEM. CA has the authorities that a broker's certificate may be of; default: those of the system. Cert and Key are shown to a cluster
	// that asks for a certificate.
	CA   string `json:"ca,omitempty"`
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`
}

// Names of Security.
var (
	protocols  = []string{"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"}
	mechanisms = []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}
)

func (s Security) protocol() string {
	if s.Protocol == "" {
		return protocols[0]
	}
	return s.Protocol
}

func (s Security) usesTLS() bool  { return strings.HasSuffix(s.protocol(), "SSL") }
func (s Security) usesSASL() bool { return strings.HasPrefix(s.protocol(), "SASL_") }

// Check returns an error unless s says one way to talk to a cluster. It does not look at files.
func (s Security) Check() error {
	switch {
	case !slices.Contains(protocols, s.protocol()):
		return fmt.Errorf("there is no security protocol %q; there are %s", s.Protocol, strings.Join(protocols, ", "))
	case !s.usesTLS() && (s.CA != "" || s.Cert != "" || s.Key != ""):
		return fmt.Errorf("certificates are for SSL or SASL_SSL, and the security protocol is %s", s.protocol())
	case (s.Cert == "") != (s.Key == ""):
		return errors.New("a certificate and its key belong together")
	case !s.usesSASL() && (s.Mechanism != "" || s.Username != ""):
		return fmt.Errorf("a SASL mechanism and username are for SASL_PLAINTEXT or SASL_SSL, and the security protocol is %s", s.protocol())
	case s.usesSASL() && !slices.Contains(mechanisms, s.Mechanism):
		return fmt.Errorf("there is no SASL mechanism %q; there are %s", s.Mechanism, strings.Join(mechanisms, ", "))
	case s.usesSASL() && (s.Username == "" || s.Password == ""):
		return errors.New("SASL needs a username and a password")
	}
	return nil
}

// question is what else may be wrong when a broker does not answer.
func (s Security) question() string {
	switch {
	case s == (Security{}):
		return ""
	case s.usesSASL():
		return fmt.Sprintf(", and does it talk %s, with %s, to %s with that password", s.protocol(), s.Mechanism, s.Username)
	}
	return ", and does it talk " + s.protocol()
}

// options are what a client is made with. What is wrong with a file names it.
func (s Security) options() ([]kgo.Opt, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	var all []kgo.Opt
	if s.usesTLS() {
		c := &tls.Config{MinVersion: tls.VersionTLS12}
		if s.CA != "" {
			text, err := os.ReadFile(s.CA)
			if err != nil {
				return nil, err
			}
			if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(text) {
				return nil, fmt.Errorf("%s has no certificate in PEM", s.CA)
			}
		}
		if s.Cert != "" {
			pair, err := tls.LoadX509KeyPair(s.Cert, s.Key)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", s.Cert, s.Key, err)
			}
			c.Certificates = []tls.Certificate{pair}
		}
		all = append(all, kgo.DialTLSConfig(c))
	}
	if s.usesSASL() {
		var m sasl.Mechanism
		who := scram.Auth{User: s.Username, Pass: s.Password}
		switch s.Mechanism {
		case "PLAIN":
			m = plain.Auth{User: s.Username, Pass: s.Password}.AsMechanism()
		case "SCRAM-SHA-256":
			m = who.AsSha256Mechanism()
		default:
			m = who.AsSha512Mechanism()
		}
		all = append(all, kgo.SASL(m))
	}
	return all, nil
}
