package api

import (
	"errors"
	"net/http"

	"millrace/control"
)

// Serving says which data version of an app readers see. It has the ETag that a promotion, or a rollback, may be asked for with, in If-Match.
type Serving struct {
	App       string `json:"app"`
	Serving   string `json:"serving,omitempty"`   // absent: none does yet
	Promoting string `json:"promoting,omitempty"` // the one that is about to
	Before    string `json:"before,omitempty"`    // what a rollback leads to; absent: there is nothing to go back to
	Revision  int64  `json:"revision"`
}

func servingOf(s control.Serving) Serving {
	out := Serving{App: s.Program, Serving: s.Now, Before: s.Before, Revision: s.Revision}
	if s.Wanted != s.Now {
		out.Promoting = s.Wanted
	}
	return out
}

// servingTags is what the ETags of what serves begin with: one of an instance is none of them.
const servingTags = "serving-"

func (h *Handler) serving(r *http.Request) (any, error) {
	s, err := h.Service.Serving(r.Context(), r.PathValue("app"))
	return tagged{tag(servingTags, s.Revision), servingOf(s)}, err
}

// orStale is the refusal of a promotion, or a rollback, unless it was decided by what does not serve any more: that is said then, as it may be why.
func (h *Handler) orStale(r *http.Request, ask Ask, refused error) error {
	if ask.Revisions == nil || !errors.Is(refused, control.ErrRefused) {
		return refused
	}
	s, err := h.Service.Serving(r.Context(), r.PathValue("app"))
	for _, revision := range ask.Revisions {
		if revision == s.Revision {
			return refused
		}
	}
	if err != nil {
		return errors.Join(refused, err)
	}
	return s.Stale()
}
