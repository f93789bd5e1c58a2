package delivery

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStatementIsRewritten(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`SELECT 1`:                              `SELECT 1`,
		`FROM a@1;`:                             `FROM "a@1" `,
		`FROM a@1 ; -- x;` + "\n ;":             `FROM "a@1"   -- x;` + "\n  ",
		`SELECT 1; SELECT 2;`:                   `SELECT 1; SELECT 2 `,
		`FROM a@unversioned AS a, b_2@20 WHERE`: `FROM "a@unversioned" AS a, "b_2@20" WHERE`,
		`FROM tabelleü@2018ü x`:                 `FROM "tabelleü@2018ü" x`,
		`SELECT 'a@1', "b@2", $$c@3$$, $x$d@4$$x$ --e@5` + "\n" + `, E'\'f@6' /* /* */ g@7 */`: `SELECT 'a@1', "b@2", $$c@3$$, $x$d@4$$x$ --e@5` + "\n" + `, E'\'f@6' /* /* */ g@7 */`,
		`SELECT 'it''s a@1' , a@2`:         `SELECT 'it''s a@1' , "a@2"`,
		`SELECT @ -1, 5@3, a @1, a@ 1, @x`: `SELECT @ -1, 5@3, a @1, a@ 1, @x`,
		`SELECT 'open ; a@1;`:              `SELECT 'open ; a@1;`,
		`/* open ; a@1;`:                   `/* open ; a@1;`,
		``:                                 ``,
	} {
		require.Equal(t, want, newStatement(text).sql, text)
	}
}

// What is not what was written are quotes, whose places are known, and blanks for semicolons; and each place in it is one in the text.
func TestRandomStatements(t *testing.T) {
	t.Parallel()
	parts := []string{"SELECT", "a", "b", "é", "@", "@", "1", "2018", "'", "\"", "$", "$t$", "--", "/*", "*/", "\n", " ", ";", "e'", "\\", "\xff", "\x00", ".", "-5"}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		var text string
		for range r.IntN(12) {
			text += parts[r.IntN(len(parts))]
		}
		s := newStatement(text)
		var back []byte
		for i := range len(s.sql) {
			if !slices.Contains(s.quotes, i) {
				back = append(back, s.sql[i])
			} else {
				require.EqualValues(t, '"', s.sql[i])
			}
		}
		require.Len(t, back, len(text), "%q", text)
		for i := range back {
			if back[i] != text[i] {
				require.Equal(t, " ;", string([]byte{back[i], text[i]}), "%q", text)
			}
		}
		lines := strings.Split(text, "\n")
		for i := range len(s.sql) + 1 {
			var fault *StatementError
			require.ErrorAs(t, s.at(i, ""), &fault)
			require.LessOrEqual(t, fault.Line, len(lines), "%q at %d", text, i)
			require.LessOrEqual(t, fault.Column, len(lines[fault.Line-1])+1, "%q at %d", text, i)
		}
	}
}
