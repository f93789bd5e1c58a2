package eventlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// DeleteTopics removes the topics of the log's cluster whose names match, with all their records. The log's own topic stays whatever match
// says.
func (l *Log) DeleteTopics(ctx context.Context, match func(name string) bool) error {
	topics, err := l.admin.ListTopics(kadm.WithAuthorizedOps(ctx)) // asks the cluster, not the client's memory
	if err != nil {
		return fmt.Errorf("list the topics of the log at %s: %w", l.address(), err)
	}
	var names []string
	for _, name := range topics.Names() {
		if name != l.cfg.Topic && match(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	answers, err := l.admin.DeleteTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("delete topics of the log at %s: %w", l.address(), err)
	}
	for _, a := range answers.Sorted() {
		if a.Err != nil && !errors.Is(a.Err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("delete topic %s of the log at %s: %w", a.Topic, l.address(), a.Err)
		}
	}
	return nil
}
