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

	// Instances get the states of the lifecycle, and what was a list of changes becomes operations.
	`ALTER TABLE instances ADD COLUMN state TEXT NOT NULL DEFAULT 'RUNNING';
	UPDATE instances SET state = CASE WHEN deleting THEN 'DELETING' WHEN suspended THEN 'SUSPENDED' ELSE 'RUNNING' END;
	ALTER TABLE instances DROP COLUMN suspended;
	ALTER TABLE instances DROP COLUMN deleting;
	ALTER TABLE instances ADD COLUMN version TEXT NOT NULL DEFAULT ''; -- of the app; empty: that of the program
	ALTER TABLE instances ADD COLUMN savepoint TEXT NOT NULL DEFAULT ''; -- that it was suspended with
	ALTER TABLE instances ADD COLUMN error TEXT NOT NULL DEFAULT ''; -- why it is FAILED
	ALTER TABLE instances ADD COLUMN updated INTEGER NOT NULL DEFAULT 0;
	ALTER TABLE instances ADD COLUMN updated_by TEXT NOT NULL DEFAULT '';
	UPDATE instances SET updated = created;
	CREATE TABLE operations (
		id INTEGER PRIMARY KEY,
		program TEXT NOT NULL,
		account TEXT NOT NULL,
		env TEXT NOT NULL,
		data_version TEXT NOT NULL,
		action TEXT NOT NULL,
		ended INTEGER NOT NULL, -- whether it has
		key TEXT, -- that it was asked with; whoever asks with it again means this one
		doc TEXT NOT NULL, -- Operation, as JSON
		UNIQUE (key)
	) STRICT;
	CREATE INDEX operations_of ON operations (program, account, env, data_version, ended);
	INSERT INTO operations (id, program, account, env, data_version, action, ended, doc)
		SELECT id, program, account, env, data_version, action, 1, json_object('program', program, 'account', account, 'env', env,
			'data_version', data_version, 'action', action, 'who', who, 'reason', reason, 'state', 'SUCCEEDED',
			'began', strftime('%Y-%m-%dT%H:%M:%SZ', at / 1000000, 'unixepoch'), 'ended', strftime('%Y-%m-%dT%H:%M:%SZ', at / 1000000, 'unixepoch')) FROM changes;
	DROP TABLE changes;
	CREATE TABLE jobs (
		id INTEGER PRIMARY KEY,
		program TEXT NOT NULL,
		account TEXT NOT NULL,
		env TEXT NOT NULL,
		data_version TEXT NOT NULL,
		version TEXT NOT NULL, -- of the app
		origin TEXT NOT NULL, -- what it began from
		began INTEGER NOT NULL,
		ended INTEGER, -- NULL while it runs
		cause TEXT NOT NULL DEFAULT '', -- of its end
		operation INTEGER -- that began it; NULL for a start of the control plane
	) STRICT;
	CREATE INDEX jobs_of ON jobs (program, account, env, data_version)`,

	// Tokens have a role, and changes leave a trace. Tokens of before read the lake, as they could.
	`ALTER TABLE tokens ADD COLUMN role INTEGER NOT NULL DEFAULT 2; -- analyst
	ALTER TABLE tokens ADD COLUMN expires INTEGER NOT NULL DEFAULT 0; -- 0: never
	ALTER TABLE tokens ADD COLUMN used INTEGER NOT NULL DEFAULT 0; -- the last time, to the hour
	CREATE TABLE audit (
		id INTEGER PRIMARY KEY,
		at INTEGER NOT NULL,
		who TEXT NOT NULL,
		role TEXT NOT NULL,
		remote TEXT NOT NULL, -- address that it came from; empty for the command line
		action TEXT NOT NULL,
		subject TEXT NOT NULL,
		reason TEXT NOT NULL,
		outcome TEXT NOT NULL
	) STRICT;
	CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, 'the audit log is only added to'); END;
	CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit BEGIN SELECT raise(ABORT, 'the audit log is only added to'); END`,

	// Jobs may have more of the machine than others: memory in MB. 0 is as all jobs have.
	`ALTER TABLE instances ADD COLUMN parallelism INTEGER NOT NULL DEFAULT 0;
	ALTER TABLE instances ADD COLUMN memory INTEGER NOT NULL DEFAULT 0`,

	// Versions of apps that were pushed, which of them is deployed, and what keeps them from being.
	`CREATE TABLE artifacts (
		app TEXT NOT NULL,
		version TEXT NOT NULL,
		pushed INTEGER NOT NULL,
		doc TEXT NOT NULL, -- Artifact, as JSON
		PRIMARY KEY (app, version)
	) STRICT;
	CREATE TABLE deploys (
		id INTEGER PRIMARY KEY,
		app TEXT NOT NULL,
		doc TEXT NOT NULL -- Deploy, as JSON
	) STRICT;
	CREATE INDEX deploys_of ON deploys (app);
	CREATE TABLE blockers (
		id INTEGER PRIMARY KEY,
		doc TEXT NOT NULL -- Blocker, as JSON
	) STRICT`,

	// People with passwords, and where they are signed in.
	`CREATE TABLE users (
		name TEXT PRIMARY KEY,
		password TEXT NOT NULL, -- argon2id, in the PHC string format
		role INTEGER NOT NULL,
		created INTEGER NOT NULL,
		signed_in INTEGER NOT NULL DEFAULT 0, -- the last time
		disabled INTEGER NOT NULL DEFAULT 0
	) STRICT;
	CREATE TABLE sessions (
		id TEXT PRIMARY KEY,
		hash BLOB NOT NULL UNIQUE,
		user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
		began INTEGER NOT NULL,
		used INTEGER NOT NULL
	) STRICT`,

	// Tokens may be bound to one account; empty: to none.
	`ALTER TABLE tokens ADD COLUMN account TEXT NOT NULL DEFAULT ''`,

	// People may sign in at an OpenID Connect provider, which knows them by its issuer and their subject. Whoever has none has a password.
	`ALTER TABLE users ADD COLUMN issuer TEXT NOT NULL DEFAULT '';
	ALTER TABLE users ADD COLUMN subject TEXT NOT NULL DEFAULT '';
	CREATE UNIQUE INDEX users_at_providers ON users (issuer, subject) WHERE issuer <> ''`,

	// Who changes an instance can say which revision of it they have seen.
	`ALTER TABLE instances ADD COLUMN revision INTEGER NOT NULL DEFAULT 1`,

	// People may be bound to one account, as tokens are; empty: to none.
	`ALTER TABLE users ADD COLUMN account TEXT NOT NULL DEFAULT ''`,

	// The stack that the file is of.
	`CREATE TABLE stack (
		one INTEGER PRIMARY KEY CHECK (one = 1),
		id TEXT NOT NULL,
		name TEXT NOT NULL,
		created INTEGER NOT NULL
	) STRICT`,

	// Who changes a user can say which revision of them they have seen.
	`ALTER TABLE users ADD COLUMN revision INTEGER NOT NULL DEFAULT 1`,
}
