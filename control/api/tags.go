package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"millrace/control"
	"millrace/plan"
)

// Record is what is recorded of an instance. It changes with what is done with the instance, not with what its job does, and has the ETag that a
// change of it may be asked for with, in If-Match (RFC 9110).
type Record struct {
	UniqueID    string          `json:"unique_id"`
	DataVersion string          `json:"data_version"`
	State       string          `json:"state"`               // one of control's but SEEDING and RESTARTING, which are of the job
	Version     string          `json:"version"`             // of the app
	Savepoint   string          `json:"savepoint,omitempty"` // that it was suspended with
	Error       string          `json:"error,omitempty"`     // why it is FAILED
	Seed        *plan.SeedRange `json:"seed,omitempty"`
	Parallelism int             `json:"parallelism,omitempty"` // left out: that of all jobs, as is the memory
	Memory      int64           `json:"memory_mb,omitempty"`
	Created     time.Time       `json:"created"`
	Updated     time.Time       `json:"updated"`
	UpdatedBy   string          `json:"updated_by"`
	Revision    int64           `json:"revision"`
}

func recordOf(i control.Instance) Record {
	return Record{
		UniqueID: i.UniqueID(), DataVersion: i.DataVersion, State: string(i.State), Version: i.Version, Savepoint: i.Savepoint, Error: i.Error, Seed: i.Seed,
		Parallelism: i.Parallelism, Memory: i.Resources.Memory, Created: i.Created, Updated: i.Updated, UpdatedBy: i.UpdatedBy, Revision: i.Revision,
	}
}

// Tag is the ETag of a revision.
func Tag(revision int64) string { return tag("", revision) }

// tag is the ETag of a revision of what has tags that begin with a prefix.
func tag(prefix string, revision int64) string {
	return `"` + prefix + strconv.FormatInt(revision, 10) + `"`
}

// tagged is an answer that is the same as long as its ETag is.
type tagged struct {
	tag  string
	body any
}

// stale is the answer to a change that was decided by what is no more: what is there now, with its tag.
func stale(e *control.StaleError) tagged {
	switch now := e.Present.(type) {
	case control.Instance:
		return tagged{Tag(now.Revision), recordOf(now)}
	case control.Deploy:
		return tagged{Tag(now.ID), now}
	case control.User:
		return tagged{Tag(now.Revision), userOf(now)}
	case control.Serving:
		return tagged{tag(servingTags, now.Revision), servingOf(now)}
	}
	panic(fmt.Sprintf("api: what has changed is a %T", e.Present))
}

// tags are those of a header that lists some. all reports whether it means every one.
func tags(r *http.Request, header string) (list []string, all bool) {
	for _, tag := range strings.Split(strings.Join(r.Header.Values(header), ","), ",") {
		if tag = strings.TrimSpace(tag); tag == "*" {
			all = true
		} else if tag != "" {
			list = append(list, tag)
		}
	}
	return list, all
}

// hasSame reports whether who asks has what would be answered. For that a weak tag is as good.
func hasSame(r *http.Request, tag string) bool {
	list, all := tags(r, "If-None-Match")
	for _, have := range list {
		all = all || strings.TrimPrefix(have, "W/") == tag
	}
	return all
}

// revisions are those that a change is asked for with, of what has tags that begin with a prefix; nil are all. A weak tag is none of them, as are those of something else.
func revisions(r *http.Request, prefix string) ([]int64, error) {
	list, all := tags(r, "If-Match")
	if all || list == nil {
		return nil, nil
	}
	wanted := []int64{}
	for _, tag := range list {
		text, quoted := strings.CutPrefix(strings.TrimPrefix(tag, "W/"), `"`)
		text, ends := strings.CutSuffix(text, `"`)
		if !quoted || !ends {
			return nil, fmt.Errorf("%w: If-Match: %s: want tags as ETag has them, such as \"3\" with its quotes", ErrInvalid, tag)
		}
		number, of := strings.CutPrefix(text, prefix)
		if n, err := strconv.ParseInt(number, 10, 64); err == nil && of && !strings.HasPrefix(tag, "W/") {
			wanted = append(wanted, n)
		}
	}
	return wanted, nil
}
