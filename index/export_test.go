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

// Rows is how many rows the tables of an index take in the file, deleted ones included.
func (s *Server) Rows(index string) (n int64, err error) {
	q := "SELECT sum(count) FROM pragma_storage_info('" + s.catalog.indices[index].table() + "') WHERE column_name = 'h' AND segment_type = 'BIGINT'"
	err = s.db.QueryRow(q).Scan(&n)
	return n, err
}
