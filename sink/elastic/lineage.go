package elastic

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"millrace/plan"
	"millrace/sink"
)

// pageSize is how many rows are compared, and how many documents taken back, at once.
const pageSize = 500

// Begin claims the instance's indices, those of tables included that the plan does not have any more. When the lineage has
// ancestors it then compares each index with the past, row by row: a row of which the index has no revision of the history is
// put there as it was, and the documents of other histories that are left are deleted. That takes a search for 500 rows of the
// past, so it takes time in proportion to the tables, once for a lineage; meanwhile the index answers searches, each document
// from before or after.
//
// It fails for a lineage without ancestors when an index holds rows of another one, and for one with ancestors when there is
// no past to compare with.
func (s *Sink) Begin(ctx context.Context, l sink.Lineage, past sink.Past) (err error) {
	s.lineage = l
	clear(s.claims)
	clear(s.ready)
	defer func() {
		if err != nil {
			s.lineage = sink.Lineage{}
		}
	}()
	if err := s.checkForeign(ctx); err != nil {
		return err
	}
	if err := s.register(ctx, l); err != nil {
		return err
	}
	if err := s.claimIndices(ctx, "/_alias/millrace-"+s.instance+"-*"); err != nil {
		return err
	}
	if err := errors.Join(s.nameOwn(ctx), s.serveFirst(ctx)); err != nil {
		return err
	}
	unsettled := s.unsettled()
	_, forked := l.Start()
	if len(unsettled) == 0 && (!forked || past == nil || len(s.claims) > 0) {
		return nil
	}
	if err := s.refresh(ctx, unsettled); err != nil {
		return err
	}
	if forked {
		if past == nil {
			return errors.New("the rows of older lineages cannot be taken back without the lake: give the job a lake, or write to a new data version")
		}
		if err := s.restore(ctx, past); err != nil {
			return fmt.Errorf("restore rows that older lineages have changed: %w", err)
		}
	}
	for index := range s.unsettled() {
		if err := s.takeBack(ctx, index); err != nil {
			return fmt.Errorf("take back what older lineages have put into index %s: %w", index, err)
		}
	}
	return s.settle(ctx)
}

// checkForeign keeps a lineage without ancestors off indices with the rows of another one, before it claims them: a job that lost its
// directory, or was given a wrong one, must not stop the one they belong to.
func (s *Sink) checkForeign(ctx context.Context) error {
	if _, forked := s.lineage.Start(); forked {
		return nil
	}
	found, err := s.found(ctx, "/_alias/millrace-"+s.instance+"-*")
	if err != nil {
		return err
	}
	for _, index := range slices.Sorted(maps.Keys(found)) {
		if slices.ContainsFunc(found[index], func(c claim) bool { return c.token >= s.lineage.Token }) {
			continue
		}
		ids, err := s.search(ctx, index, s.foreign())
		if err != nil {
			return err
		}
		if len(ids) > 0 {
			return fmt.Errorf("index %s holds rows of another lineage, such as %s: continue that lineage, or write to a new data version", index, ids[0])
		}
	}
	return nil
}

// foreign is the query for documents that are not in the lineage's history.
func (s *Sink) foreign() object { return object{"bool": object{"must_not": []object{s.held()}}} }

// unsettled are the indices in which something of older lineages may be left.
func (s *Sink) unsettled() map[string]bool {
	out := map[string]bool{}
	for index, c := range s.claims {
		if !c.settled {
			out[index] = true
		}
	}
	return out
}

// adopt claims an index that was made after Begin looked, or by an older version of the program.
func (s *Sink) adopt(ctx context.Context, index string) error {
	if err := s.claimIndices(ctx, "/"+index+"/_alias/millrace-*", index); err != nil {
		return err
	}
	if s.claims[index].settled || s.restoring {
		return nil
	}
	if err := s.refresh(ctx, map[string]bool{index: true}); err != nil {
		return err
	}
	if err := s.takeBack(ctx, index); err != nil {
		return err
	}
	return s.settle(ctx)
}

// settle notes at the target that nothing of older lineages is left.
func (s *Sink) settle(ctx context.Context) error {
	indices := slices.Sorted(maps.Keys(s.unsettled()))
	for some := range slices.Chunk(indices, 1000) {
		var actions []any
		for _, index := range some {
			actions = append(actions, addAlias(index, s.claims[index].settledAlias()))
		}
		if err := s.do(ctx, http.MethodPost, "/_aliases", map[string]any{"actions": actions}, nil); err != nil {
			return fmt.Errorf("note that the indices of the instance are complete: %w", err)
		}
	}
	for _, index := range indices {
		c := s.claims[index]
		c.settled = true
		s.claims[index] = c
	}
	return nil
}

type object = map[string]any

// held is the query for documents that are in the lineage's history.
func (s *Sink) held() object {
	should := []object{{"term": object{"_lineage": s.lineage.ID}}}
	for _, a := range s.lineage.Ancestors {
		should = append(should, object{"bool": object{"filter": []object{
			{"term": object{"_lineage": a.Lineage}}, {"range": object{"_epoch": object{"lte": a.Epoch}}},
		}}})
	}
	return object{"bool": object{"should": should, "minimum_should_match": 1}}
}

// search returns the ids of at most pageSize documents. What a shard does not answer for would pass for not being there, so all must answer.
func (s *Sink) search(ctx context.Context, index string, query object) ([]string, error) {
	var answer struct {
		Hits struct {
			Hits []struct {
				ID string `json:"_id"`
			} `json:"hits"`
		} `json:"hits"`
	}
	err := s.do(ctx, http.MethodPost, "/"+index+"/_search?allow_partial_search_results=false", object{"size": pageSize, "_source": false, "query": query}, &answer)
	if err != nil {
		return nil, fmt.Errorf("search index %s: %w", index, err)
	}
	ids := make([]string, len(answer.Hits.Hits))
	for i, h := range answer.Hits.Hits {
		ids[i] = h.ID
	}
	return ids, nil
}

// restore puts the rows of the past into their indices of which these have no revision of the history.
func (s *Sink) restore(ctx context.Context, past sink.Past) error {
	s.restoring = true
	defer func() {
		s.restoring = false
		clear(s.ready) // their mapping is the past's
	}()
	for i, pt := range past.Tables() {
		t, err := newTable(&pt)
		if err != nil {
			return err
		}
		pages := map[string][]sink.PastRow{}
		w := s.newWriter()
		for r, err := range past.Rows(ctx, i) {
			if err != nil {
				return err
			}
			index := s.index(t.Name, r.Row)
			if pages[index] = append(pages[index], r); len(pages[index]) < pageSize {
				continue
			}
			if err := s.fill(ctx, w, &t, index, pages[index]); err != nil {
				return err
			}
			delete(pages, index)
		}
		for _, index := range slices.Sorted(maps.Keys(pages)) {
			if err := s.fill(ctx, w, &t, index, pages[index]); err != nil {
				return err
			}
		}
		if err := w.flush(ctx); err != nil {
			return err
		}
		if n := len(w.rejected); n > 0 { // as they were when they came first: they are dead letters
			s.config.Logger.Info("rows not restored, as the target does not take them", "table", t.Name, "rows", n)
		}
	}
	return nil
}

// fill puts the rows of a page into an index that it lacks.
func (s *Sink) fill(ctx context.Context, w *writer, t *table, index string, rows []sink.PastRow) error {
	there := map[string]bool{}
	if _, exists := s.claims[index]; exists {
		ids := make([]string, len(rows))
		for i, r := range rows {
			ids[i] = r.ID
		}
		found, err := s.search(ctx, index, object{"bool": object{"filter": []object{{"terms": object{RowID: ids}}, s.held()}}})
		if err != nil {
			return err
		}
		for _, id := range found {
			there[id] = true
		}
	}
	for _, r := range rows {
		if there[r.ID] {
			continue
		}
		if err := w.row(ctx, t, index, r.Row, r.Lineage, r.AppVersion); err != nil {
			return err
		}
	}
	return nil
}

// takeBack deletes the documents of an index that are not in the history. What is remembered of them has a lower version than
// any revision that the lineage may give them.
func (s *Sink) takeBack(ctx context.Context, index string) error {
	query := s.foreign()
	last := ""
	for {
		ids, err := s.search(ctx, index, query)
		if err != nil || len(ids) == 0 {
			return err
		}
		if _, forked := s.lineage.Start(); !forked {
			return fmt.Errorf("it holds rows of another lineage, such as %s: continue that lineage, or write to a new data version", ids[0])
		}
		if ids[0] == last {
			return fmt.Errorf("document %s was deleted and is found again", last)
		}
		last = ids[0]
		w := s.newWriter()
		w.touched[index], w.deleting[s.claims[index].alias] = true, true
		for _, id := range ids {
			w.bulk.body = appendAction(w.bulk.body, s.claims[index], id, 0, true)
			w.bulk.rows = append(w.bulk.rows, plan.Row{ID: id, Deleted: true})
			w.bulk.ends = append(w.bulk.ends, len(w.bulk.body))
		}
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
}
