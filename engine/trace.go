package engine

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Spans are made when what they tell of is over, with the times of then: an epoch that changes nothing has none, and there is nothing to
// end on the way out of an error.

// traceEpoch makes the spans of an epoch that was committed.
func (e *Engine) traceEpoch(began, stepped time.Time, epoch uint64, in *input, rows int) {
	ended, records := time.Now(), 0
	if in != nil {
		records = in.records
	}
	ctx, span := e.span(began, "epoch", attribute.Int64("millrace.epoch", int64(epoch)), //nolint:gosec // for people
		attribute.Int("millrace.records", records), attribute.Int("millrace.rows", rows))
	for _, part := range []struct {
		name     string
		from, to time.Time
	}{{"step", began, stepped}, {"commit", stepped, ended}} {
		_, child := e.c.Tracer.Start(ctx, part.name, trace.WithTimestamp(part.from))
		child.End(trace.WithTimestamp(part.to))
	}
	span.End(trace.WithTimestamp(ended))
}

// tracePublish makes the span of a batch that a sink was given.
func (e *Engine) tracePublish(began time.Time, sink string, from, to uint64, rows int, err error) {
	_, span := e.span(began, "publish "+sink, attribute.Int64("millrace.from_epoch", int64(from)), //nolint:gosec // for people
		attribute.Int64("millrace.to_epoch", int64(to)), attribute.Int("millrace.rows", rows)) //nolint:gosec // for people
	end(span, err)
}

// traceCheckpoint makes the span of a checkpoint or savepoint.
func (e *Engine) traceCheckpoint(began time.Time, err error) {
	_, span := e.span(began, "checkpoint")
	end(span, err)
}

func (e *Engine) span(began time.Time, name string, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	return e.c.Tracer.Start(context.Background(), name, trace.WithTimestamp(began),
		trace.WithAttributes(append(attributes, attribute.String("millrace.instance", e.c.Instance))...))
}

func end(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
