package index

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Error is a refusal in Elasticsearch's terms: what the body of an error response says.
type Error struct {
	Status int    // HTTP status
	Type   string // parsing_exception, index_not_found_exception, …
	Reason string
	Index  string // the index it is about; may be empty

	shard bool // found when the request met a mapping: Elasticsearch then reports that all shards failed
}

func (e *Error) Error() string { return e.Reason }

func refuse(status int, typ, format string, args ...any) *Error {
	return &Error{Status: status, Type: typ, Reason: fmt.Sprintf(format, args...)}
}

// illegal refuses a request whose parts are understood but not possible.
func illegal(format string, args ...any) *Error {
	return refuse(http.StatusBadRequest, "illegal_argument_exception", format, args...)
}

// unparsable refuses a request that is not understood.
func unparsable(format string, args ...any) *Error {
	return refuse(http.StatusBadRequest, "parsing_exception", format, args...)
}

// onShard refuses a search that does not fit the mapping of an index.
func onShard(index, typ, format string, args ...any) *Error {
	e := refuse(http.StatusBadRequest, typ, format, args...)
	e.Index, e.shard = index, true
	return e
}

func notFound(index string) *Error {
	e := refuse(http.StatusNotFound, "index_not_found_exception", "no such index [%s]", index)
	e.Index = index
	return e
}

// asError returns err as what the client is told. An error that is nobody's refusal is the server's own: 500.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if strings.Contains(err.Error(), "Out of Memory Error") {
		return refuse(http.StatusTooManyRequests, "circuit_breaking_exception", "[parent] Data too large: the request needs more than the memory that the index may use; ask for less at once, or raise its memory limit")
	}
	return refuse(http.StatusInternalServerError, "exception", "%s", err)
}

// cause is the JSON of an error inside a response.
func (e *Error) cause() map[string]any {
	c := map[string]any{"type": e.Type, "reason": e.Reason}
	if e.Index != "" {
		c["index"] = e.Index
		c["index_uuid"] = "_na_"
		if e.Type == "index_not_found_exception" {
			c["resource.type"] = "index_or_alias"
			c["resource.id"] = e.Index
		}
	}
	return c
}

// body is the JSON of an error response.
func (e *Error) body() map[string]any {
	c := e.cause()
	if e.shard {
		c = map[string]any{
			"type": "search_phase_execution_exception", "reason": "all shards failed", "phase": "query", "grouped": true,
			"failed_shards": []any{map[string]any{"shard": 0, "index": e.Index, "reason": e.cause()}},
		}
	}
	c["root_cause"] = []any{e.cause()}
	return map[string]any{"error": c, "status": e.Status}
}
