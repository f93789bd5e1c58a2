package control

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Stack is an environment that apps are deployed to, such as the talk's master-prod1. A store is that of one stack.
type Stack struct {
	ID      string    `json:"id"`   // tells it from others that have its name
	Name    string    `json:"name"` // 1 to 64 letters, digits, ., _ and -
	Created time.Time `json:"created"`
}

// DefaultStack is what a stack is called that nobody has named.
const DefaultStack = "local"

var stackName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// CheckStackName returns an error unless text can name a stack.
func CheckStackName(text string) error {
	if stackName.MatchString(text) {
		return nil
	}
	return fmt.Errorf("%q cannot name a stack: use 1 to 64 letters, digits, ., _ and -, beginning with a letter or digit, such as master-prod1", text)
}

// Stack returns the stack, which is recorded when it is asked for first. A name that is not empty is the one it has from now on, and named says that it had
// another one, or none, before.
func (s *Store) Stack(ctx context.Context, name string) (out Stack, named bool, err error) {
	if name != "" {
		if err := CheckStackName(name); err != nil {
			return out, false, err
		}
	}
	err = transaction(ctx, s.db, func(tx *sql.Tx) error {
		out, err = stackOf(ctx, tx)
		was := out.Name
		if out.ID == "" {
			out = Stack{ID: rand.Text(), Name: DefaultStack, Created: time.Now().UTC().Truncate(time.Microsecond)}
		}
		if err != nil || was != "" && (name == "" || name == was) {
			return err
		}
		if name != "" {
			out.Name, named = name, true
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO stack (one, id, name, created) VALUES (1, ?, ?, ?) ON CONFLICT DO UPDATE SET name = excluded.name`, out.ID, out.Name, out.Created.UnixMicro())
		return err
	})
	if err != nil {
		return out, false, fmt.Errorf("name the stack: %w", err)
	}
	return out, named, nil
}

// stackOf is the stack as it is recorded; the zero value when it is not.
func stackOf(ctx context.Context, tx *sql.Tx) (out Stack, err error) {
	var created int64
	err = tx.QueryRowContext(ctx, `SELECT id, name, created FROM stack`).Scan(&out.ID, &out.Name, &created)
	if errors.Is(err, sql.ErrNoRows) {
		return out, nil
	}
	out.Created = time.UnixMicro(created).UTC()
	return out, err
}
