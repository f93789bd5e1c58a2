package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"millrace/artifact"
	"millrace/control"
	"millrace/eventlog"
	"millrace/lake"
)

// Defaults of a stack.
const (
	defaultListen = "127.0.0.1:8420"
	defaultPrefix = "/caliper"

	defaultRestarts = 5
)

// prefixes are the paths that a collector may have, and taken are those that the console serves.
var (
	prefixes = regexp.MustCompile(`^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$`)
	taken    = regexp.MustCompile(`^/(api|assets|debug|events|healthz|iceberg|login|logout|account|setup|metrics|readyz|tables)(/|$)`)
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run collector, log, jobs, index and console until interrupted",
		Args:  exactArgs(),
	}
	cfg := stackFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withStack(cmd, *cfg, slog.LevelInfo, func(ctx context.Context, s *stack) error {
			link, err := s.setupLink(context.WithoutCancel(ctx)) // who sees the next line may interrupt at once
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "millrace: console %s, collector %s, log %s, index %s\n", s.url(), s.collectorURL(), s.logAddr, s.indexAddr)
			if link != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "millrace: nobody has an account yet: %s makes the first admin's, once, as long as this process runs\n", link)
			}
			ended, said := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(said)
				select {
				case <-ctx.Done():
					s.sayStopping(cmd.ErrOrStderr(), ended)
				case <-ended:
				}
			}()
			err = s.Run(ctx)
			close(ended)
			<-said
			return err
		})
	}
	return cmd
}

// stackFlags adds the flags that say what a stack is made of.
func stackFlags(cmd *cobra.Command) *stackConfig {
	cfg := &stackConfig{}
	f := cmd.Flags()
	f.StringVar(&cfg.name, "stack", "", "name of the stack, such as master-prod1, for people and the history of deploys; default: the one it has, at first local")
	f.StringVar(&cfg.listen, "listen", defaultListen, "address of collector and console")
	f.StringVar(&cfg.tlsCert, "tls-cert", "", "file with the certificate that --listen shows, PEM, with its chain; read again when it has changed")
	f.StringVar(&cfg.tlsKey, "tls-key", "", "file with its key, PEM")
	f.BoolVar(&cfg.insecure, "insecure-http", false, "let --listen be an address that other machines reach, without TLS: something before it has TLS")
	f.Var(anonymousFlag{&cfg.anonymous}, "anonymous", "role of who shows no token: none, viewer or analyst; default: analyst when --listen, and --public-url if given, are addresses of this machine alone, else none")
	f.StringVar(&cfg.publicURL, "public-url", "", "URL at which browsers reach the console, such as https://millrace.example.edu, if something stands before --listen; default: that of --listen")
	f.StringVar(&cfg.prefix, "prefix", defaultPrefix, "path of the collector; it also answers at /message below it")
	f.StringVar(&cfg.logListen, "log-listen", "127.0.0.1:0", "address of the embedded broker")
	f.StringVar(&cfg.indexListen, "index-listen", "127.0.0.1:0", "address of the embedded index")
	f.DurationVar(&cfg.flush, "flush", time.Minute, "how long rows gather for one snapshot of the lake")
	f.Int64Var(&cfg.memory, "memory", defaultMemory, "MB of memory that the process and those of its jobs may hold")
	f.Int64Var(&cfg.jobMemory, "job-memory", 0, "MB of --memory for the process of each job, 0 for 15 % of it; one that holds three times as much is ended, and started again")
	f.Int64Var(&cfg.corrections, "job-corrections", defaultCorrections, "MB of records, before compression, that the state of each job may hold for CorrectFor alone; beyond it the oldest are not corrected any more")
	f.IntVar(&cfg.restarts, "job-restarts", defaultRestarts, "how often a job that fails is started again by itself within ten minutes, before it is FAILED")
	f.BoolVar(&cfg.tableTopics, "table-topics", false, "publish the tables to topics of the log too: table.<namespace>.<table>; the first run decides")
	f.StringVar(&cfg.traces, "traces", "", "URL of an OpenTelemetry collector to send traces to, by OTLP over HTTP, such as http://127.0.0.1:4318; none are made without")
	f.Float64Var(&cfg.traceShare, "traces-share", 1, "share of the traces that is sent, from 0 to 1")
	f.StringVar(&cfg.logFormat, "log-format", "text", "form of the log's lines: text or json")
	serverFlags(cmd, cfg)
	oidcFlags(cmd, &cfg.oidc)
	return cfg
}

// serverFlags adds the flags that name servers to use in place of embedded ones.
func serverFlags(cmd *cobra.Command, cfg *stackConfig) {
	cmd.Flags().StringSliceVar(&cfg.brokers, "brokers", nil, "Kafka brokers to use in place of the embedded one")
	cmd.Flags().StringVar(&cfg.security.Protocol, "kafka-security-protocol", "", "how those brokers are talked to: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; default: PLAINTEXT")
	cmd.Flags().StringVar(&cfg.security.Mechanism, "kafka-sasl-mechanism", "", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
	cmd.Flags().StringVar(&cfg.security.Username, "kafka-sasl-username", "", "who asks them. The password is said by $"+artifact.PasswordVariable)
	cmd.Flags().StringVar(&cfg.security.CA, "kafka-ssl-ca", "", "file with the authorities of their certificates, PEM; default: those of the system")
	cmd.Flags().StringVar(&cfg.security.Cert, "kafka-ssl-cert", "", "file with the certificate that is shown to them, PEM")
	cmd.Flags().StringVar(&cfg.security.Key, "kafka-ssl-key", "", "file with its key, PEM")
	cmd.Flags().StringVar(&cfg.indexURL, "index-url", "", "URL of an Elasticsearch or OpenSearch to use in place of the embedded index")
	cmd.Flags().StringVar(&cfg.warehouse, "lake", "", "s3://bucket/prefix to keep the lake's files in, in place of the data directory; the first run decides")
	cmd.Flags().StringVar(&cfg.s3.Endpoint, "s3-endpoint", "", "URL of the S3 server; default: $AWS_ENDPOINT_URL_S3, else the last run's, else that of AWS")
	cmd.Flags().StringVar(&cfg.s3.Region, "s3-region", "", "region of the S3 server; default: $AWS_REGION, else the last run's, else us-east-1")
	cmd.Flags().StringVar(&cfg.catalog.URI, "lake-catalog", "", "URL of an Iceberg REST catalogue to list the lake's tables in, in place of the data directory; the first run decides. "+
		"Who asks it is said by $"+artifact.TokenVariable+" or $"+artifact.CredentialVariable)
	cmd.Flags().StringVar(&cfg.catalog.Warehouse, "lake-catalog-warehouse", "", "warehouse of that catalogue; default: the one that it has")
	cmd.Flags().StringVar(&cfg.catalog.Namespace, "lake-catalog-namespace", "", "namespace of that catalogue to have the lake's namespaces in; default: none")
	cmd.Flags().StringVar(&cfg.catalog.OAuth2, "lake-catalog-oauth2-server-uri", "", "URL that gives a token for the credential; default: the catalogue's own")
	cmd.Flags().StringVar(&cfg.catalog.Scope, "lake-catalog-scope", "", "scope of that token; default: the last run's, else catalog")
}

// anonymousFlag is the role of who shows no token.
type anonymousFlag struct{ role **control.Role }

func (f anonymousFlag) String() string {
	switch {
	case f.role == nil || *f.role == nil:
		return ""
	case **f.role == 0:
		return "none"
	}
	return (**f.role).String()
}

func (anonymousFlag) Type() string { return "role" }

func (f anonymousFlag) Set(text string) error {
	role := control.Role(0)
	if text != "none" {
		var err error
		if role, err = control.ParseRole(text); err != nil || role > control.Analyst {
			return errors.New("want none, viewer or analyst")
		}
	}
	*f.role = &role
	return nil
}

// withStack opens the stack in the command's data directory, runs fn and closes it.
func withStack(cmd *cobra.Command, cfg stackConfig, level slog.Level, fn func(context.Context, *stack) error) (err error) {
	if cfg.flush <= 0 {
		return usagef("--flush %s: want a positive duration such as 60s", cfg.flush)
	}
	if cfg.name != "" {
		if err := control.CheckStackName(cfg.name); err != nil {
			return usagef("--stack: %w", err)
		}
	}
	if u, err := url.Parse(cfg.indexURL); cfg.indexURL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		return usagef("--index-url %q is no URL: want one such as http://127.0.0.1:9200", cfg.indexURL)
	}
	if cfg.warehouse != "" {
		if err := lake.ValidWarehouse(cfg.warehouse); err != nil {
			return usagef("--lake: %w", err)
		}
	}
	if err := artifact.WithSecrets(cfg.catalog).Check(); err != nil {
		return usagef("--lake-catalog: %w", err)
	}
	if err := cfg.checkKafka(); err != nil {
		return err
	}
	if err := cfg.checkOIDC(); err != nil {
		return err
	}
	if err := cfg.oidc.takeSecret(); err != nil {
		return err
	}
	if cfg.s3.Endpoint == "" {
		cfg.s3.Endpoint = os.Getenv("AWS_ENDPOINT_URL_S3")
	}
	if cfg.s3.Region == "" {
		cfg.s3.Region = os.Getenv("AWS_REGION")
	}
	if !prefixes.MatchString(cfg.prefix) || taken.MatchString(cfg.prefix) {
		return usagef("--prefix %q: want a path such as /caliper or /lms/events, not one of the console's", cfg.prefix)
	}
	if (cfg.tlsCert == "") != (cfg.tlsKey == "") {
		return usagef("--tls-cert and --tls-key belong together: give both")
	}
	if cfg.insecure && cfg.tlsCert != "" {
		return usagef("--insecure-http says that --listen has no TLS: leave it out, or --tls-cert")
	}
	if cfg.jobMemory == 0 {
		cfg.jobMemory = max(jobMemoryFor(cfg.memory), leastJobMemory) // what is too little for that is refused below
	}
	if cfg.jobMemory < leastJobMemory {
		return usagef("--job-memory %d: want %d MB or more", cfg.jobMemory, leastJobMemory)
	}
	if cfg.corrections < 1 {
		return usagef("--job-corrections %d: want 1 MB or more", cfg.corrections)
	}
	if least := memoryFor(2 * cfg.jobMemory); cfg.memory < least {
		return usagef("--memory %d: want %d MB or more", cfg.memory, least)
	}
	if u, err := url.Parse(cfg.traces); cfg.traces != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		return usagef("--traces %q is no URL: want one such as http://127.0.0.1:4318", cfg.traces)
	}
	if cfg.traceShare < 0 || cfg.traceShare > 1 || math.IsNaN(cfg.traceShare) {
		return usagef("--traces-share %v: want 0 to 1", cfg.traceShare)
	}
	if cfg.logFormat != "" && cfg.logFormat != "text" && cfg.logFormat != "json" {
		return usagef("--log-format %q: want text or json", cfg.logFormat)
	}
	if cfg.restarts < 0 {
		return usagef("--job-restarts %d: want 0 or more", cfg.restarts)
	}
	cfg.logLevel, cfg.jobOutput = level, cmd.ErrOrStderr()
	cfg.logger = artifact.NewLogger(cmd.ErrOrStderr(), level, cfg.logFormat)
	dir, err := openDataDir(dataDirFlag(cmd))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	cfg.dir = dir
	s, err := openStack(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	s.divideMemory()
	return fn(cmd.Context(), s)
}

// checkKafka returns an error unless it is said how brokers are talked to, or that there are none.
func (c stackConfig) checkKafka() error {
	switch err := artifact.WithPassword(c.security).Check(); {
	case c.security == (eventlog.Security{}):
	case len(c.brokers) == 0:
		return usagef("--kafka-… say how the brokers of --brokers are talked to, and there are none")
	case err != nil:
		return usagef("--kafka-…: %w; the password is in $%s", err, artifact.PasswordVariable)
	}
	return nil
}
