package api

import (
	"net/http"
	"reflect"
	"time"

	"millrace/control"
)

// SavepointsPath is the address of the states that jobs can go back to.
const SavepointsPath = "/api/v1/savepoints"

// Savepoint is a state that the job of an instance can go back to.
type Savepoint struct {
	Name     string    `json:"name"`     // of a checkpoint checkpoint/<epoch>
	Kind     string    `json:"kind"`     // savepoint, kept on purpose, or checkpoint, which the job made by itself
	Instance string    `json:"instance"` // its unique id
	Made     time.Time `json:"made,omitzero"`
	Version  string    `json:"version,omitempty"` // of the app that made it
	Lineage  string    `json:"lineage,omitempty"`
	Epoch    uint64    `json:"epoch"`
	Bytes    int64     `json:"bytes"`            // shared with the job's state until that changes
	Dir      string    `json:"dir"`              // where it is on that machine
	Damage   string    `json:"damage,omitempty"` // why there is no going back to it
}

// savepointEndpoints are the addresses of savepoints.
func (h *Handler) savepointEndpoints() []endpoint {
	return []endpoint{
		{
			method: http.MethodGet, path: SavepointsPath, summary: "The savepoints and checkpoints of all instances; of each the savepoints first, the newest first", status: http.StatusOK,
			answer: reflect.TypeFor[[]Savepoint](), serve: func(r *http.Request) (any, error) { return h.Service.Savepoints(r.Context()) },
		},
		{
			method: http.MethodPost, path: SavepointsPath + "/{instance}/{savepoint}/delete", summary: "Delete a savepoint, unless an operation is to go back to it, or what is suspended",
			body: reflect.TypeFor[DeleteAsk](), status: http.StatusOK, answer: reflect.TypeFor[Savepoint](), serve: h.deleteSavepoint,
		},
	}
}

func (h *Handler) deleteSavepoint(r *http.Request) (any, error) {
	ask, who, err := deletion(r)
	if err != nil {
		return nil, err
	}
	instance, name := r.PathValue("instance"), r.PathValue("savepoint")
	p, err := h.Service.DeleteSavepoint(r.Context(), instance, name)
	return p, h.audited(r, control.Entry{Who: who, Action: "delete savepoint", Subject: instance + " " + name, Reason: ask.Reason, Outcome: "deleted"}, err)
}
