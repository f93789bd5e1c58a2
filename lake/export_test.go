package lake

import "context"

// OpenWithFaults opens a lake whose file system asks fault before each change; see fileSystem.
func OpenWithFaults(ctx context.Context, cfg Config, fault func(op, path string) error) (*Lake, error) {
	cfg.fault = fault
	return Open(ctx, cfg)
}
