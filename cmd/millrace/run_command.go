package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"millrace/artifact"
	"millrace/plan"
)

// processesDir is the folder of a data directory that has one for the process of each job.
const processesDir = "processes"

// runCommand is the process of a job. Only serve and its like start it.
func runCommand() *cobra.Command {
	return &cobra.Command{
		Use: artifact.RunCommand + " DIR", Hidden: true, Args: exactArgs("the folder of a job's process"),
		RunE: func(cmd *cobra.Command, args []string) error { return artifact.Run(cmd.Context(), args[0], planOf) },
	}
}

// planOf returns the plan of an app that this program holds.
func planOf(name string) (*plan.Plan, error) {
	byName, _, err := plans()
	if err != nil {
		return nil, err
	}
	p := byName[name]
	if p == nil {
		return nil, fmt.Errorf("this program (%s) has no app %s", version, name)
	}
	return p, nil
}
