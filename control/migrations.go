package control

// migrations lead from the schema of a number to the next one; the file's user_version is how many it has had. One that was released is
// never changed. Times are microseconds since 1970.
var migrations = []string{
	// What there was before schemas had numbers, or part of it.
	`CREATE TABLE IF NOT EXISTS sensor_keys (
		id TEXT PRIMARY KEY,
		hash BLOB NOT NULL UNIQUE,
		account TEXT NOT NULL,
		env TEXT NOT NULL,
		source_type TEXT NOT NULL,
		created INTEGER NOT NULL
	) STRICT;
	CREATE TABLE IF NOT EXISTS tokens (
		id TEXT PRIMARY KEY,
		hash BLOB NOT NULL UNIQUE,
		name TEXT NOT NULL UNIQUE,
		created INTEGER NOT NULL
	) STRICT;
	CREATE TABLE IF NOT EXISTS instances (
		program TEXT NOT NULL,
		account TEXT NOT NULL,
		env TEXT NOT NULL,
		data_version TEXT NOT NULL,
		seed TEXT NOT NULL, -- JSON, empty for none
		suspended INTEGER NOT NULL,
		deleting INTEGER NOT NULL DEFAULT 0,
		created INTEGER NOT NULL,
		PRIMARY KEY (program, account, env, data_version)
	) STRICT;
	CREATE TABLE IF NOT EXISTS promotions ( -- the newest one that is not undone says which instance serves
		id INTEGER PRIMARY KEY,
		program TEXT NOT NULL,
		account TEXT NOT NULL,
		env TEXT NOT NULL,
		data_version TEXT NOT NULL,
		state TEXT NOT NULL
	) STRICT;
	CREATE TABLE IF NOT EXISTS changes (
		id INTEGER PRIMARY KEY,
		at INTEGER NOT NULL,
		program TEXT NOT NULL,
		account TEXT NOT NULL,
		env TEXT NOT NULL,
		data_version TEXT NOT NULL,
		action TEXT NOT NULL,
		who TEXT NOT NULL,
		reason TEXT NOT NULL
	) STRICT;
	CREATE TABLE IF NOT EXISTS runs (
		unique_id TEXT PRIMARY KEY,
		restarts INTEGER NOT NULL,
		running INTEGER NOT NULL
	) STRICT`,
}
