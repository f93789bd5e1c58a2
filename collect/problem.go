package collect

import (
	"encoding/json"
	"net/http"
)

// problem is why a request was not answered with 200: a problem document as RFC 9457 describes it, with two members more.
type problem struct {
	Type   string `json:"type"` // the last part of a URN; names the kind of problem for programs
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Action string `json:"action"` // what the sender can do
	Kept   bool   `json:"kept"`   // whether the payload is in the log as a reject
}

func (p problem) write(w http.ResponseWriter) {
	p.Type = "urn:millrace:problem:" + p.Type
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // only strings went in
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}

// unavailable is the answer when our side cannot do its part.
func (c *Collector) unavailable(w http.ResponseWriter, detail string) *problem {
	w.Header().Set("Retry-After", "5")
	return &problem{
		Type: "unavailable", Status: http.StatusServiceUnavailable, Title: "The collector cannot store items",
		Detail: detail + " Nothing of this request is confirmed.",
		Action: "Send it again after the seconds that Retry-After says.",
	}
}
