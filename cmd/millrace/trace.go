package main

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

// openTracer returns what makes spans of requests, epochs, publications and checkpoints, and what ends it. Without an address it makes none: an
// address is given by a flag alone, and no variable of the environment turns traces on.
func openTracer(ctx context.Context, address string, sample float64, logger *slog.Logger) (trace.Tracer, func() error, error) {
	if address == "" {
		return noop.NewTracerProvider().Tracer(scope), func() error { return nil }, nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, nil, err
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.JoinPath("v1", "traces").String()), otlptracehttp.WithTimeout(5*time.Second))
	if err != nil {
		return nil, nil, fmt.Errorf("traces to %s: %w", address, err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { // there is one of the process
		logger.Warn("traces not delivered", "error", err)
	}))
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(exporter),
		sdk.WithSampler(sdk.TraceIDRatioBased(sample)),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "millrace"), attribute.String("service.version", version))),
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
