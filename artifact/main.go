package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"millrace/etl"
	"millrace/plan"
)

// SpecFormat is the number of Spec and of the protocol of control/local, as an executable has them. A control plane starts executables of its own
// number alone: another one is built again.
const SpecFormat = 1

// The commands of an executable.
const (
	RunCommand      = "run"      // DIR: the process of a job
	DescribeCommand = "describe" // prints a Description
)

// Description is what an executable says of the app that it holds.
type Description struct {
	SpecFormat int              `json:"specFormat"`
	Descriptor json.RawMessage  `json:"descriptor"` // as the app's author wrote it
	Plan       plan.Description `json:"plan"`
}

// Main is the main function of an executable that holds an app: the process of its jobs, for a control plane that was given the executable with
// 'millrace build' and 'millrace build push'. descriptor is the app's, in JSON.
func Main(app etl.App, descriptor []byte) {
	if err := run(context.Background(), app, descriptor, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
}

func run(ctx context.Context, app etl.App, descriptor []byte, args []string) error {
	p, err := app.Plan()
	if err != nil {
		return err
	}
	switch {
	case len(args) == 2 && args[0] == RunCommand:
		return Run(ctx, args[1], func(name string) (*plan.Plan, error) {
			if name != p.App {
				return nil, fmt.Errorf("this executable holds %s, not %s", p.App, name)
			}
			return p, nil
		})
	case len(args) == 1 && args[0] == DescribeCommand:
		if !json.Valid(descriptor) {
			return errors.New("the descriptor is no JSON")
		}
		return json.NewEncoder(os.Stdout).Encode(Description{SpecFormat, descriptor, p.Describe()})
	}
	return fmt.Errorf("this holds %s %s for a Millrace to run: 'millrace build' makes an artifact of its source, 'millrace build push' hands it over", p.App, p.Version)
}
