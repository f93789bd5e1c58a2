package main

import (
	"context"

	"millrace/control"
)

// Serving implements api.Service.
func (s *stack) Serving(ctx context.Context, name string) (control.Serving, error) {
	a, err := s.app(name)
	if err != nil {
		return control.Serving{}, err
	}
	return s.store.Instances.WhatServes(ctx, a.line)
}
