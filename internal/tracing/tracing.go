// Package tracing sends what processes do as OpenTelemetry traces, when they are told where to.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// scope names in traces what made a span.
const scope = "millrace"

// Config says where traces go.
type Config struct {
	Address string  // URL of a collector that takes OTLP over HTTP; empty: there are none, and no variable of the environment turns them on
	Share   float64 // of the traces that is sent, 0 to 1
	Version string  // of the program
}

// Open returns what makes spans of requests, epochs, publications and checkpoints, and what ends it.
func Open(ctx context.Context, cfg Config, logger *slog.Logger) (trace.Tracer, func() error, error) {
	if cfg.Address == "" {
		return noop.NewTracerProvider().Tracer(scope), func() error { return nil }, nil
	}
	u, err := url.Parse(cfg.Address)
	if err != nil {
		return nil, nil, err
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.JoinPath("v1", "traces").String()), otlptracehttp.WithTimeout(5*time.Second))
	if err != nil {
		return nil, nil, fmt.Errorf("traces to %s: %w", cfg.Address, err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { // there is one of the process
		logger.Warn("traces not delivered", "error", err)
	}))
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(exporter),
		sdk.WithSampler(sdk.TraceIDRatioBased(cfg.Share)),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "millrace"), attribute.String("service.version", cfg.Version))),
	)
	return provider.Tracer(scope), func() error {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := provider.Shutdown(ending); err != nil { // a trace is not worth a stop that is not clean
			logger.Warn("last traces not delivered", "error", err)
		}
		return nil
	}, nil
}
