package index

import (
	"bytes"
	"fmt"
	"strings"
)

type bulkItem struct {
	Index   string         `json:"_index"`
	ID      string         `json:"_id"`
	Version *int64         `json:"_version,omitempty"`
	Result  string         `json:"result,omitempty"`
	Forced  bool           `json:"forced_refresh,omitempty"`
	Shards  *shards        `json:"_shards,omitempty"`
	SeqNo   *int64         `json:"_seq_no,omitempty"`
	Term    int            `json:"_primary_term,omitempty"`
	Status  int            `json:"status,omitempty"`
	Error   map[string]any `json:"error,omitempty"`
}

type shards struct {
	Total      int `json:"total"`
	Successful int `json:"successful"`
	Failed     int `json:"failed"`
}

var oneShard = &shards{1, 1, 0}

// item is the JSON of a result; forced says that the request asked for a refresh at once, which every write has.
func (r result) item(forced bool) bulkItem {
	if r.err != nil {
		return bulkItem{Index: r.index, ID: r.id, Status: r.err.Status, Error: r.err.cause()}
	}
	forced = forced && r.outcome != "noop"
	return bulkItem{Index: r.index, ID: r.id, Version: &r.version, Result: r.outcome, Forced: forced, Shards: oneShard, SeqNo: &r.seq, Term: 1, Status: r.status()}
}

func (s *Server) bulk(r *request) (reply, error) {
	start := s.config.Now()
	ops, err := parseBulk(r.body, r.vars["index"], r.flag("require_alias"))
	if err != nil {
		return reply{}, err
	}
	results, err := s.writer.write(r.Context(), ops)
	if err != nil {
		return reply{}, err
	}
	out := struct {
		Took   int64                 `json:"took"`
		Errors bool                  `json:"errors"`
		Items  []map[action]bulkItem `json:"items"`
	}{took(s.config.Now, start), false, make([]map[action]bulkItem, len(results))}
	for i, res := range results {
		out.Errors = out.Errors || res.err != nil
		out.Items[i] = map[action]bulkItem{ops[i].action: res.item(r.flag("refresh"))}
	}
	return reply{body: out}, nil
}

// parseBulk reads lines of an action each, followed by a line of its document unless it is a delete. A malformed action
// refuses the whole request, because what follows cannot be told apart; a malformed document only its item.
func parseBulk(body []byte, target string, requireAlias bool) ([]*op, error) {
	if len(body) == 0 {
		return nil, refuse(400, "parse_exception", "request body is required")
	}
	if body[len(body)-1] != '\n' {
		return nil, illegal("The bulk request must be terminated by a newline [\\n]")
	}
	var ops []*op
	line := 0
	for len(body) > 0 {
		var text []byte
		text, body, _ = bytes.Cut(body, []byte{'\n'})
		line++
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		o, err := parseAction(text, line)
		if err != nil {
			return nil, err
		}
		if o.target == "" {
			o.target = target
		}
		o.alias = o.alias || requireAlias
		if o.action != actionDelete {
			if len(body) == 0 {
				return nil, illegal("Malformed action/metadata line [%d], the document after it is missing", line)
			}
			text, body, _ = bytes.Cut(body, []byte{'\n'})
			line++
			o.setSource(bytes.TrimSpace(text))
		}
		if err := o.validate(); err != nil {
			return nil, err
		}
		ops = append(ops, o)
	}
	if len(ops) == 0 {
		return nil, refuse(400, "action_request_validation_exception", "Validation Failed: 1: no requests added;")
	}
	return ops, nil
}

func parseAction(text []byte, line int) (*op, error) {
	v, err := parseJSON(text)
	if err != nil {
		return nil, illegal("Malformed action/metadata line [%d]: %s", line, err)
	}
	if v.kind != kindObject || len(v.obj) != 1 || v.obj[0].val.kind != kindObject {
		return nil, illegal("Malformed action/metadata line [%d], expected an object with one action that is an object", line)
	}
	o := &op{action: action(v.obj[0].key)}
	switch o.action {
	case actionIndex, actionCreate, actionDelete, actionUpdate:
	default:
		return nil, illegal("Malformed action/metadata line [%d], expected field [create], [delete], [index] or [update] but found [%s]", line, o.action)
	}
	for _, m := range v.obj[0].val.obj {
		ok := true
		switch m.key {
		case "_index":
			o.target, ok = m.val.str, m.val.kind == kindString && m.val.str != ""
		case "_id":
			if m.val.kind == kindNull {
				continue
			}
			o.id, ok = m.val.text(), m.val.kind == kindString || m.val.kind == kindNumber
			if o.id == "" {
				o.refused = illegal("if _id is specified it must not be empty")
			}
		case "version", "_version":
			o.version, ok = m.val.integer()
		case "version_type", "_version_type":
			err = o.setVersioning(m.val.text())
		case "if_seq_no":
			var n int64
			n, ok = m.val.integer()
			o.ifSeqNo = &n
		case "if_primary_term":
			_, ok = m.val.integer()
		case "op_type":
			if o.action != actionIndex && o.action != actionCreate || m.val.text() != "index" && m.val.text() != "create" {
				return nil, illegal("Malformed action/metadata line [%d], op_type [%s] is not index or create", line, m.val.text())
			}
			o.action = action(m.val.text())
		case "require_alias":
			o.alias, ok = m.val.kind == kindBool && m.val.isTrue(), m.val.kind == kindBool
		case "retry_on_conflict":
			_, ok = m.val.integer() // writes are one after another: nothing to retry
		default:
			return nil, illegal("Action/metadata line [%d] contains an unknown parameter [%s]", line, m.key)
		}
		if !ok {
			return nil, illegal("Malformed action/metadata line [%d], a value of [%s] was not expected for [%s]", line, m.val.raw, m.key)
		}
		if err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *op) setVersioning(name string) error {
	switch name {
	case "internal":
		o.versioning = internal
	case "external", "external_gt":
		o.versioning = external
	case "external_gte":
		o.versioning = externalGTE
	default:
		return illegal("No version type match [%s]", name)
	}
	return nil
}

// setSource takes the document of an op; one that is no JSON object refuses the op.
func (o *op) setSource(text []byte) {
	doc, err := parseJSON(text)
	switch {
	case err != nil:
		o.refused = documentError("[1:1] failed to parse: %s", err)
	case doc.kind != kindObject:
		o.refused = documentError("[1:1] failed to parse: Malformed content, must start with an object")
	default:
		o.source, o.doc = text, doc
	}
	if o.action == actionUpdate && o.refused == nil {
		o.setUpdate(&doc)
	}
}

func (o *op) setUpdate(body *value) {
	part := value{kind: kindObject, obj: []member{}}
	for i := range body.obj {
		m := &body.obj[i]
		ok := true
		switch m.key {
		case "doc":
			part, ok = m.val, m.val.kind == kindObject
		case "upsert":
			o.upsert, ok = &m.val, m.val.kind == kindObject
		case "doc_as_upsert":
			ok = m.val.kind == kindBool
			o.asUpsert = ok && m.val.isTrue()
		case "detect_noop":
			ok = m.val.kind == kindBool && m.val.isTrue()
		default:
			o.refused = illegal("[UpdateRequest] unsupported field [%s]", m.key)
			return
		}
		if !ok {
			o.refused = illegal("[UpdateRequest] unsupported value [%s] of [%s]", m.val.raw, m.key)
			return
		}
	}
	o.doc, o.source = part, part.raw
}

// validate refuses what refuses the whole request.
func (o *op) validate() error {
	var problems []string
	if o.target == "" {
		problems = append(problems, "index is missing")
	}
	if len(o.id) > 512 {
		problems = append(problems, fmt.Sprintf("id [%s] is too long, must be no longer than 512 bytes but was: %d", o.id, len(o.id)))
	}
	if o.id == "" && o.refused == nil {
		switch {
		case o.action == actionDelete || o.action == actionUpdate:
			problems = append(problems, "id is missing")
		case o.versioning != internal:
			problems = append(problems, "an id must be provided if version type or value are set")
		default:
			o.id = newID()
			o.action = actionIndex
		}
	}
	switch {
	case o.versioning != internal && o.version < 0:
		problems = append(problems, fmt.Sprintf("illegal version value [%d] for version type [external]", o.version))
	case o.versioning != internal && o.action == actionCreate:
		problems = append(problems, "create operations only support internal versioning. use index instead")
	case o.versioning != internal && o.action == actionUpdate:
		problems = append(problems, "internal versioning can not be used for optimistic concurrency control. Please use `if_seq_no` and `if_primary_term` instead")
	case o.versioning == internal && o.version != 0:
		problems = append(problems, "internal versioning can not be used for optimistic concurrency control. Please use `if_seq_no` and `if_primary_term` instead")
	}
	if len(problems) == 0 {
		return nil
	}
	for i := range problems {
		problems[i] = fmt.Sprintf("%d: %s;", i+1, problems[i])
	}
	return refuse(400, "action_request_validation_exception", "Validation Failed: %s", strings.Join(problems, ""))
}
