package index

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

func (s *Server) putDocument(r *request) (reply, error) {
	act := actionIndex
	switch t := r.query.Get("op_type"); t {
	case "", "index":
	case "create":
		act = actionCreate
	default:
		return reply{}, illegal("opType must be 'create' or 'index', found: [%s]", t)
	}
	return s.writeDocument(r, act)
}

func (s *Server) createDocument(r *request) (reply, error) { return s.writeDocument(r, actionCreate) }

func (s *Server) updateDocument(r *request) (reply, error) { return s.writeDocument(r, actionUpdate) }

func (s *Server) deleteDocument(r *request) (reply, error) { return s.writeDocument(r, actionDelete) }

func (s *Server) writeDocument(r *request, act action) (reply, error) {
	o := &op{action: act, target: r.vars["index"], id: r.vars["id"], alias: r.flag("require_alias")}
	if v := r.query.Get("version_type"); v != "" {
		if err := o.setVersioning(v); err != nil {
			return reply{}, err
		}
	}
	for _, name := range []string{"version", "if_seq_no", "if_primary_term"} {
		if !r.query.Has(name) {
			continue
		}
		n, err := strconv.ParseInt(r.query.Get(name), 10, 64)
		if err != nil {
			return reply{}, illegal("Failed to parse long parameter [%s] with value [%s]", name, r.query.Get(name))
		}
		switch name {
		case "version":
			o.version = n
		case "if_seq_no":
			o.ifSeqNo = &n
		}
	}
	if act != actionDelete {
		if len(r.body) == 0 {
			return reply{}, refuse(400, "parse_exception", "request body is required")
		}
		o.setSource(r.body)
	}
	if err := o.validate(); err != nil {
		return reply{}, err
	}
	results, err := s.writer.write(r.Context(), []*op{o})
	if err != nil {
		return reply{}, err
	}
	if results[0].err != nil {
		return reply{}, results[0].err
	}
	item := results[0].item(r.flag("refresh"))
	item.Status = 0
	return reply{status: results[0].status(), body: item}, nil
}

// document reads one document; nil when there is none.
func (s *Server) document(r *request) (*index, *docState, error) {
	var x *index
	d := &docState{}
	err := s.read(r.Context(), func(snap snapshot) error {
		xs, err := snap.resolve(r.vars["index"], lenience{refuseNone: true})
		if err != nil {
			return err
		}
		if len(xs) > 1 {
			return illegal("alias [%s] has more than one index associated with it, can't execute a single index op", r.vars["index"])
		}
		x = xs[0]
		q := fmt.Sprintf("SELECT version, seq, source FROM %s WHERE h = $1 AND id = $2 AND NOT deleted", x.table())
		return snap.tx.QueryRowContext(r.Context(), q, hash(r.vars["id"]), r.vars["id"]).Scan(&d.version, &d.seq, &d.source)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return x, nil, nil
	}
	return x, d, err
}

type getResult struct {
	Index   string          `json:"_index"`
	ID      string          `json:"_id"`
	Version *int64          `json:"_version,omitempty"`
	SeqNo   *int64          `json:"_seq_no,omitempty"`
	Term    int             `json:"_primary_term,omitempty"`
	Found   bool            `json:"found"`
	Source  json.RawMessage `json:"_source,omitempty"`
}

func (s *Server) getDocument(r *request) (reply, error) {
	filter, err := sourceParams(r)
	if err != nil {
		return reply{}, err
	}
	x, d, err := s.document(r)
	if err != nil {
		return reply{}, err
	}
	if d == nil {
		return reply{status: 404, body: getResult{Index: x.Name, ID: r.vars["id"]}}, nil
	}
	if v := r.query.Get("version"); v != "" && v != strconv.FormatInt(d.version, 10) {
		return reply{}, conflict(x.Name, r.vars["id"], "current version [%d] is different than the one provided [%s]", d.version, v)
	}
	source, err := filter.apply([]byte(d.source))
	return reply{body: getResult{x.Name, r.vars["id"], &d.version, &d.seq, 1, true, source}}, err
}

func (s *Server) getSource(r *request) (reply, error) {
	filter, err := sourceParams(r)
	if err != nil {
		return reply{}, err
	}
	_, d, err := s.document(r)
	if err != nil {
		return reply{}, err
	}
	if d == nil {
		return reply{}, refuse(404, "resource_not_found_exception", "Document not found [%s]/[%s]", r.vars["index"], r.vars["id"])
	}
	source, err := filter.apply([]byte(d.source))
	return reply{body: json.RawMessage(source)}, err
}
