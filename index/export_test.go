package index

// OpenWith opens an index with options of DuckDB, which it does not have any more when it is opened again.
func OpenWith(config Config, options map[string]string) (*Server, error) {
	config.options = options
	s, err := Open(config)
	if err == nil {
		s.config.options = nil
	}
	return s, err
}

// RenewAfter says of how many vectors rows are deleted before the database is opened again. Call it before anything is written.
func (s *Server) RenewAfter(vectors int) { s.writer.most = vectors }
