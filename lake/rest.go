package lake

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/catalog/rest"
	"github.com/apache/iceberg-go/table"

	"millrace/internal/retry"
)

// REST names an Iceberg REST catalogue that lists a lake's tables in place of catalog.db. The zero value is none.
type REST struct {
	URI       string `json:"uri,omitempty"`       // https://host/path, without the /v1 that its requests begin with
	Warehouse string `json:"warehouse,omitempty"` // which of the catalogue's warehouses; default: the one that it has
	Namespace string `json:"namespace,omitempty"` // the namespace that the lake's are in, levels divided by dots; default: they are in none

	// Who asks. At most one of Token and Credential; a catalogue that asks nobody needs neither. They are not kept.
	Token      string `json:"-"`                // bearer token
	Credential string `json:"-"`                // client id:client secret, which OAuth2 gives a token for
	OAuth2     string `json:"oauth2,omitempty"` // URL that gives it; default: the catalogue's own
	Scope      string `json:"scope,omitempty"`  // of that token; default catalog
}

// place is r without what says who asks.
func (r REST) place() REST {
	r.Token, r.Credential = "", ""
	return r
}

// Check returns an error unless r can name a catalogue, or is zero.
func (r REST) Check() error {
	for _, u := range []struct{ what, text string }{{"address of an Iceberg REST catalogue", r.URI}, {"address for OAuth2", r.OAuth2}} {
		parsed, err := url.Parse(u.text)
		if u.text != "" && (err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.User != nil || parsed.RawQuery != "") {
			return fmt.Errorf("%q is no %s: want a URL such as https://catalog.example.org/iceberg", withoutUser(u.text), u.what)
		}
	}
	for _, level := range r.levels() {
		if err := ValidNamespace(level); err != nil {
			return err
		}
	}
	if r.Token != "" && r.Credential != "" {
		return errors.New("both a token and a credential for the REST catalogue are given: leave one out")
	}
	return nil
}

// withoutUser is a URL without the secrets that one might write into it.
func withoutUser(text string) string {
	if _, rest, ok := strings.Cut(text, "@"); ok {
		return "…@" + rest
	}
	return text
}

func (r REST) levels() []string {
	if r.Namespace == "" {
		return nil
	}
	return strings.Split(r.Namespace, ".")
}

const (
	claimRef    = keyPrefix + "claim" // a tag whose snapshot, of no files, is another one after each claim
	propLake    = keyPrefix + "lake"  // of a namespace: the id of its lake
	keyClaim    = keyPrefix + "claimed"
	commitLimit = time.Minute // until a commit is answered
	inFlight    = DefaultKeepFor
)

// restCatalogue is an Iceberg REST catalogue. Namespaces of other lakes, and of others, may be in it: the lake's own have its id.
//
// The server knows no requirement that a table is unchanged, but that its schema, partitioning and references are. All that changes a
// table in a way that matters for another commit changes one of those: commits move main, pins and marks are tags, and a claim, which might
// change properties alone, moves the tag claimRef.
type restCatalogue struct {
	*rest.Catalog

	at     REST
	lake   string // its id
	base   string // location of its warehouse
	fsys   fileSystem
	config *restConfig

	dir string // with db, which remembers where the catalogue is
	db  *sql.DB

	mu     sync.Mutex
	tables bool // as db has it
}

// openREST asks the catalogue for its configuration. What it says of S3 is in config.
func openREST(ctx context.Context, cfg Config, db *sql.DB, at REST, fsName string) (*restCatalogue, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	config := &restConfig{next: transport, path: "/v1/config"}
	if u, err := url.Parse(at.URI); err == nil {
		config.path = u.JoinPath("v1/config").Path
	}
	options := []rest.Option{
		rest.WithCustomTransport(config), rest.WithWarehouseLocation(at.Warehouse), rest.WithOAuthToken(at.Token), rest.WithCredential(at.Credential),
		rest.WithScope(at.Scope), rest.WithAdditionalProps(iceberg.Properties{fsProperty: fsName}),
	}
	if u, err := url.Parse(at.OAuth2); err == nil && at.OAuth2 != "" {
		options = append(options, rest.WithAuthURI(u))
	}
	c := &restCatalogue{at: at, config: config, dir: cfg.Dir, db: db}
	err := c.again(ctx, func(ctx context.Context) (err error) {
		c.Catalog, err = rest.NewCatalog(ctx, catalogName, at.URI, options...)
		return err
	})
	if err == nil {
		return c, nil
	}
	config.close()
	switch {
	case errors.Is(err, ErrUnavailable):
		err = fmt.Errorf("%w: start it, or give the address that it has", err)
	case at.Warehouse != "" && (config.status == http.StatusBadRequest || config.status == http.StatusNotFound):
		err = fmt.Errorf("%w: it may have no warehouse %q; give one that it has", err, at.Warehouse)
	case !config.answered && config.status != 0 && config.status != http.StatusUnauthorized && config.status != http.StatusForbidden:
		err = fmt.Errorf("%w: it answers, but not as an Iceberg REST catalogue does; give the address before its /v1/config", err)
	}
	return nil, err
}

// Close closes the connections.
func (c *restCatalogue) Close() error {
	err := c.Catalog.Close()
	c.config.close()
	return err
}

// again asks the server, a few times when it does not answer or cannot at the moment. Only for what may be asked twice.
func (c *restCatalogue) again(ctx context.Context, ask func(context.Context) error) error {
	policy := retry.Policy{Min: 50 * time.Millisecond, Max: time.Second, Attempts: requestTries}
	return retry.Do(ctx, policy, func(ctx context.Context) error {
		asking, cancel := context.WithTimeout(ctx, answerTimeout)
		defer cancel()
		err := c.explain(ask(asking))
		if asking.Err() != nil && ctx.Err() == nil && err != nil { // it has had its time
			return retry.Permanent(fmt.Errorf("%w: catalogue %s has not answered within %s", ErrUnavailable, c.at.URI, answerTimeout))
		}
		if err != nil && !errors.Is(err, ErrUnavailable) {
			return retry.Permanent(err)
		}
		return err
	})
}

// explain makes errors of the client those of the package, with the server's address.
func (c *restCatalogue) explain(err error) error {
	var network net.Error
	var address *url.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, catalog.ErrNamespaceAlreadyExists), errors.Is(err, catalog.ErrTableAlreadyExists),
		errors.Is(err, catalog.ErrNoSuchNamespace), errors.Is(err, table.ErrCommitFailed):
		return err
	case c.Catalog != nil && strings.HasPrefix(err.Error(), "NotFoundException: "): // Java's name for a file that is missing, with whatever status
		return fmt.Errorf("catalogue %s: %s: %w", c.at.URI, err.Error(), fs.ErrNotExist)
	case errors.Is(err, catalog.ErrNoSuchTable):
		return err
	case strings.Contains(err.Error(), rest.ErrOAuthError.Error()): // who gives the tokens has not answered; an answer reads otherwise
		return fmt.Errorf("%w: catalogue %s: %w", ErrUnavailable, c.at.URI, err)
	case errors.Is(err, rest.ErrUnauthorized), errors.Is(err, rest.ErrForbidden), errors.Is(err, rest.ErrAuthorizationExpired), errors.Is(err, rest.ErrOAuthError):
		return fmt.Errorf("catalogue %s refuses: %w: check the token or credential, and what it may do", c.at.URI, err)
	case errors.As(err, &address):
		err = address.Err // the request's URL is long
		fallthrough
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		strings.Contains(err.Error(), "error decoding json payload: `"+io.ErrUnexpectedEOF.Error()), // an answer that was cut off: the client keeps the text alone
		errors.Is(err, rest.ErrServerError), errors.Is(err, rest.ErrServiceUnavailable), errors.Is(err, rest.ErrCommitStateUnknown), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: catalogue %s: %w", ErrUnavailable, c.at.URI, err)
	}
	return fmt.Errorf("catalogue %s: %w", c.at.URI, err)
}

// inside is where in the catalogue something of the lake is.
func (c *restCatalogue) inside(ident table.Identifier) table.Identifier {
	return slices.Concat(c.at.levels(), ident)
}

// ListNamespaces lists the lake's namespaces.
func (c *restCatalogue) ListNamespaces(ctx context.Context, _ table.Identifier) (own []table.Identifier, err error) {
	err = c.namespaces(ctx, func(ident table.Identifier, owner string) {
		if owner == c.lake {
			own = append(own, ident[len(ident)-1:])
		}
	})
	return own, err
}

// foreign is a namespace that another lake has where this one would have its own; empty when there is none.
func (c *restCatalogue) foreign(ctx context.Context) (name string, err error) {
	err = c.namespaces(ctx, func(ident table.Identifier, owner string) {
		if owner != "" && owner != c.lake {
			name = strings.Join(ident, ".")
		}
	})
	return name, err
}

// namespaces calls fn with each namespace where the lake's are, in full, and the id of the lake that has it, if one has.
func (c *restCatalogue) namespaces(ctx context.Context, fn func(ident table.Identifier, owner string)) error {
	depth := len(c.at.levels())
	var all []table.Identifier
	err := c.again(ctx, func(ctx context.Context) (err error) {
		all, err = c.Catalog.ListNamespaces(ctx, c.at.levels())
		return err
	})
	if errors.Is(err, catalog.ErrNoSuchNamespace) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, ident := range all {
		if len(ident) != depth+1 || ValidNamespace(ident[depth]) != nil {
			continue
		}
		owner, err := c.owner(ctx, ident)
		if errors.Is(err, catalog.ErrNoSuchNamespace) {
			continue // it has just been dropped
		}
		if err != nil {
			return err
		}
		fn(ident, owner)
	}
	return nil
}

// owner is the id of the lake that has a namespace; empty when it is none's.
func (c *restCatalogue) owner(ctx context.Context, namespace table.Identifier) (id string, err error) {
	err = c.again(ctx, func(ctx context.Context) error {
		props, err := c.Catalog.LoadNamespaceProperties(ctx, namespace)
		id = props[propLake]
		return err
	})
	return id, err
}

// ListTables lists the tables of one of the lake's namespaces.
func (c *restCatalogue) ListTables(ctx context.Context, namespace table.Identifier) iter.Seq2[table.Identifier, error] {
	return func(yield func(table.Identifier, error) bool) {
		var names []table.Identifier
		err := c.again(ctx, func(ctx context.Context) error {
			names = nil
			for ident, err := range c.Catalog.ListTables(ctx, c.inside(namespace)) {
				if err != nil {
					return err
				}
				names = append(names, ident)
			}
			return nil
		})
		if errors.Is(err, catalog.ErrNoSuchNamespace) {
			return // it has just been dropped
		}
		if err != nil {
			yield(nil, err)
			return
		}
		for _, ident := range names {
			if !yield(ident, nil) {
				return
			}
		}
	}
}

// CreateNamespace makes a namespace the lake's. It makes the ones around it too, which are nobody's.
func (c *restCatalogue) CreateNamespace(ctx context.Context, namespace table.Identifier, _ iceberg.Properties) error {
	levels := c.at.levels()
	for i := range levels {
		err := c.create(ctx, levels[:i+1], nil)
		if err != nil && !errors.Is(err, catalog.ErrNamespaceAlreadyExists) {
			return err
		}
	}
	full := c.inside(namespace)
	// A catalogue may want to know where a namespace is before it lets tables be there.
	err := c.create(ctx, full, iceberg.Properties{propLake: c.lake, "location": c.base + "/" + strings.Join(namespace, "/")})
	if err == nil {
		return c.remembered(ctx, true)
	}
	if !errors.Is(err, catalog.ErrNamespaceAlreadyExists) {
		return err
	}
	owner, ownerErr := c.owner(ctx, full)
	if ownerErr != nil || owner == c.lake {
		return errors.Join(err, ownerErr)
	}
	// One that somebody made for the lake has nothing in it.
	if owner == "" {
		for _, err := range c.ListTables(ctx, namespace) {
			if err != nil {
				return err
			}
			owner = "others"
			break
		}
	}
	if owner != "" {
		return fmt.Errorf("namespace %s of catalogue %s has tables that are not of this lake: give the lake a namespace of its own to have its namespaces in", strings.Join(full, "."), c.at.URI)
	}
	err = c.again(ctx, func(ctx context.Context) error {
		_, err := c.Catalog.UpdateNamespaceProperties(ctx, full, nil, iceberg.Properties{propLake: c.lake})
		return err
	})
	if err == nil {
		err = c.remembered(ctx, true)
	}
	return err
}

func (c *restCatalogue) create(ctx context.Context, namespace table.Identifier, props iceberg.Properties) error {
	return c.again(ctx, func(ctx context.Context) error { return c.Catalog.CreateNamespace(ctx, namespace, props) })
}

// DropNamespace drops one of the lake's namespaces.
func (c *restCatalogue) DropNamespace(ctx context.Context, namespace table.Identifier) error {
	owner, err := c.owner(ctx, c.inside(namespace))
	if err != nil {
		return err
	}
	if owner != c.lake {
		return nil // not the lake's
	}
	own, err := c.ListNamespaces(ctx, nil)
	if err != nil {
		return err
	}
	if len(own) == 1 { // it is the last
		if err := c.remembered(ctx, false); err != nil {
			return err
		}
	}
	return c.again(ctx, func(ctx context.Context) error { return c.Catalog.DropNamespace(ctx, c.inside(namespace)) })
}

// LoadTable reads the newest state of a table.
func (c *restCatalogue) LoadTable(ctx context.Context, ident table.Identifier) (tbl *table.Table, err error) {
	err = c.again(ctx, func(ctx context.Context) (err error) {
		tbl, err = c.Catalog.LoadTable(ctx, c.inside(ident))
		return err
	})
	return tbl, err
}

// CreateTable makes a table. One whose outcome was not known exists already at the next try.
func (c *restCatalogue) CreateTable(ctx context.Context, ident table.Identifier, schema *iceberg.Schema, opts ...catalog.CreateTableOpt) (tbl *table.Table, err error) {
	err = c.again(ctx, func(ctx context.Context) (err error) {
		tbl, err = c.Catalog.CreateTable(ctx, c.inside(ident), schema, opts...)
		return err
	})
	return tbl, err
}

// DropTable forgets a table and leaves its files.
func (c *restCatalogue) DropTable(ctx context.Context, ident table.Identifier) error {
	return c.again(ctx, func(ctx context.Context) error { return c.Catalog.DropTable(ctx, c.inside(ident)) })
}

// CommitTable commits once: what became of a commit without an answer is for the caller to find out.
func (c *restCatalogue) CommitTable(ctx context.Context, ident table.Identifier, requirements []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	var sent []table.Requirement
	for _, r := range requirements {
		if u, ok := r.(unchanged); ok {
			sent = append(sent, u.asserted()...)
			continue
		}
		sent = append(sent, r)
	}
	// The server writes the metadata, so nothing before has made the names of the files in it durable.
	if err := c.fsys.syncDirs(); err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, commitLimit)
	defer cancel()
	meta, location, err := c.Catalog.CommitTable(ctx, c.inside(ident), sent, updates)
	return meta, location, c.explain(err)
}

// asserted is unchanged in the requirements that REST catalogues have.
func (u unchanged) asserted() []table.Requirement {
	m := u.since
	all := []table.Requirement{
		table.AssertTableUUID(m.TableUUID()),
		table.AssertCurrentSchemaID(m.CurrentSchema().ID),
		table.AssertLastAssignedFieldID(m.LastColumnID()),
		table.AssertDefaultSpecID(m.DefaultPartitionSpec()),
		table.AssertDefaultSortOrderID(m.DefaultSortOrder()),
	}
	if id := m.LastPartitionSpecID(); id != nil {
		all = append(all, table.AssertLastAssignedPartitionID(*id))
	}
	refs := map[string]*int64{table.MainBranch: nil, claimRef: nil}
	for name, ref := range m.Refs() {
		refs[name] = &ref.SnapshotID
	}
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		all = append(all, table.AssertRefSnapshotID(name, refs[name]))
	}
	return all
}

func (c *restCatalogue) inFlight() time.Duration { return inFlight }

// claimed moves the tag claimRef to a new snapshot. It has no files, so it keeps none from being removed, and is no ancestor of another.
func (c *restCatalogue) claimed(tbl *table.Table) ([]table.Update, error) {
	id := newSnapshotID(tbl)
	sequence := tbl.Metadata().LastSequenceNumber() + 1
	location := fmt.Sprintf("%s/metadata/snap-%d-claim.avro", tbl.Location(), id)
	var list bytes.Buffer
	if err := iceberg.WriteManifestList(2, &list, id, nil, &sequence, 0, nil); err != nil {
		return nil, err
	}
	if err := c.fsys.WriteFile(location, list.Bytes()); err != nil {
		return nil, err
	}
	schema := tbl.Schema().ID
	// Its time is that of other snapshots, which iceberg-go takes from the machine's clock.
	updates := []table.Update{
		table.NewAddSnapshotUpdate(&table.Snapshot{
			SnapshotID: id, SequenceNumber: sequence, TimestampMs: max(time.Now().UnixMilli(), tbl.Metadata().LastUpdatedMillis()), ManifestList: location, SchemaID: &schema,
			Summary: &table.Summary{Operation: table.OpAppend, Properties: iceberg.Properties{keyClaim: "true"}},
		}),
		table.NewSetSnapshotRefUpdate(claimRef, id, table.TagRef, 0, 0, 0),
	}
	if before := tbl.SnapshotByName(claimRef); before != nil {
		updates = append(updates, table.NewRemoveSnapshotsUpdate([]int64{before.SnapshotID}, false))
	}
	return updates, nil
}

// isClaim reports whether a snapshot is one of claimed.
func isClaim(s table.Snapshot) bool { return s.Summary != nil && s.Summary.Properties[keyClaim] != "" }

func newSnapshotID(tbl *table.Table) int64 {
	for {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			panic(err) // documented never to fail
		}
		id := int64(binary.BigEndian.Uint64(b[:]) >> 1) //nolint:gosec // the sign is shifted out
		if id != 0 && tbl.SnapshotByID(id) == nil {
			return id
		}
	}
}

// restConfig passes requests on to a catalogue, and reads its configuration as it comes by.
type restConfig struct {
	next *http.Transport
	path string // of the configuration

	answered  bool // with a configuration
	status    int  // that it was answered with
	defaults  iceberg.Properties
	overrides iceberg.Properties
}

func (c *restConfig) close() { c.next.CloseIdleConnections() }

// RoundTrip implements http.RoundTripper. Keys for S3 are not asked for: the lake has its own.
func (c *restConfig) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del("X-Iceberg-Access-Delegation")
	answer, err := c.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	isConfig := r.URL.Path == c.path
	if isConfig {
		c.status = answer.StatusCode
	}
	switch {
	case answer.StatusCode == http.StatusTooManyRequests: // the client knows no such answer
		return nil, errors.Join(errors.New(answer.Status), answer.Body.Close())
	case answer.StatusCode < 400 && !isConfig:
		return answer, nil
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return nil, err
	}
	if answer.StatusCode >= 400 {
		// A proxy's page: of an answer that is no JSON the client forgets the status.
		if len(body) > 0 && !json.Valid(body) {
			body = fmt.Appendf(nil, `{"error":{"message":%q,"code":%d}}`, answer.Status, answer.StatusCode)
		}
		return withBody(answer, body), nil
	}
	var config map[string]json.RawMessage
	if json.Unmarshal(body, &config) == nil {
		for name, into := range map[string]*iceberg.Properties{"defaults": &c.defaults, "overrides": &c.overrides} {
			if json.Unmarshal(config[name], into) != nil {
				continue
			}
			c.answered = true
			// Snapshots that are left out would be taken for expired, and their files for garbage.
			delete(*into, "snapshot-loading-mode")
			delete(*into, fsProperty)
			if config[name], err = json.Marshal(*into); err != nil {
				return nil, err
			}
		}
		if c.answered {
			if body, err = json.Marshal(config); err != nil {
				return nil, err
			}
		}
	}
	return withBody(answer, body), nil
}

func withBody(answer *http.Response, body []byte) *http.Response {
	answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	answer.Header.Del("Content-Length")
	return answer
}
