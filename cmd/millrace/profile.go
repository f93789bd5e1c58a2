package main

import (
	"net/http"
	"net/http/pprof"
	"strings"
)

// profilePath is where profiles of the running process are.
const profilePath = "/debug/pprof/"

// profiles serves Go's profiles to operators: a profile has addresses, names and arguments, and taking one costs time. The token is asked for
// though only this machine is listened on, because what else runs on it, a reverse proxy included, is no operator.
func (s *stack) profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(profilePath, pprof.Index) // and each named profile below
	mux.HandleFunc(profilePath+"cmdline", pprof.Cmdline)
	mux.HandleFunc(profilePath+"profile", pprof.Profile)
	mux.HandleFunc(profilePath+"symbol", pprof.Symbol)
	mux.HandleFunc(profilePath+"trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if err := s.authorizeOperator(token); err != nil {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "profiles need the token of the process that serves, in Authorization: Bearer …; it is in running.json of the data directory", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	})
}
