package main

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"millrace/apps/lms"
	"millrace/artifact"
	"millrace/etl"
)

// withoutQuiz has the processes of jobs run an app that has given up a table.
const withoutQuiz = "MILLRACE_TEST_WITHOUT_QUIZ"

// TestMain runs the tests, or a job of one of them: the stacks of tests start processes of the program that they are in.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == artifact.RunCommand {
		if os.Getenv(withoutQuiz) != "" {
			giveUpQuiz()
		}
		if strings.Contains(os.Args[len(os.Args)-1], "/forum-job-") { // the folder of its process
			lms.App = forumApp("1.0.0", forumTable)
		}
		os.Exit(run(context.Background(), os.Args[1:]))
	}
	os.Exit(m.Run())
}

// giveUpQuiz makes the app another version, whose plan cannot go on with the state of the one before.
func giveUpQuiz() {
	lms.App.Version = "2.0.0"
	lms.App.Tables = slices.DeleteFunc(slices.Clone(lms.App.Tables), func(table etl.Transformer) bool {
		_, quiz := table.(etl.Table[lms.QuizSubmission])
		return quiz
	})
}
