package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"millrace/apps/lms"
	"millrace/control"
	"millrace/control/api"
	"millrace/ingest"
	"millrace/plan"
)

// app is an app of the stack: one that this program holds, or one of which artifacts were pushed.
type app struct {
	line        control.Line
	descriptor  control.Descriptor
	version     string                     // that this program has of it; empty: none
	sourceTypes []string                   // that it reads; empty: all
	group       string                     // jobGroup of its jobs' parameters
	plan        func() (*plan.Plan, error) // of version; nil: there is none
}

// shippedApps are those that this program holds. The first one fills the raw lake.
func shippedApps() ([]app, error) {
	raw, err := control.ParseDescriptor("ingest/descriptor.json", ingest.Descriptor)
	if err != nil {
		return nil, err
	}
	etl, err := control.ParseDescriptor("apps/lms/descriptor.json", lms.Descriptor)
	if err != nil {
		return nil, err
	}
	return []app{
		{line: rawLine, descriptor: raw, version: version, plan: func() (*plan.Plan, error) { return ingest.Plan(version), nil }},
		{line: etlLine, descriptor: etl, version: lms.App.Version, sourceTypes: lms.App.SourceTypes, group: "ingest-etl", plan: lms.App.Plan},
	}, nil
}

// pushedApp is the app of an artifact.
func pushedApp(a control.Artifact) app {
	return app{line: lineOf(a.App), descriptor: a.Descriptor, sourceTypes: a.Plan.SourceTypes}
}

// lineOf is the line of an app: they all serve all tenants.
func lineOf(name string) control.Line {
	return control.Line{Program: name, Account: system, Env: system}
}

// openApps lists the apps: those of this program, and then those that were pushed, the oldest first.
func (s *stack) openApps(ctx context.Context) error {
	shipped, err := shippedApps()
	if err != nil {
		return err
	}
	s.apps = shipped
	pushed, err := s.store.Deploys.Artifacts(ctx)
	if err != nil {
		return err
	}
	for _, a := range slices.Backward(pushed) {
		s.addApp(a)
	}
	return s.sweepArtifacts(pushed)
}

// addApp adds the app of an artifact, unless it is there.
func (s *stack) addApp(a control.Artifact) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.ContainsFunc(s.apps, func(o app) bool { return o.line.Program == a.App }) {
		s.apps = append(slices.Clip(s.apps), pushedApp(a))
	}
}

// removeApp takes an app away of which nothing is left.
func (s *stack) removeApp(l control.Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps = slices.DeleteFunc(slices.Clone(s.apps), func(a app) bool { return a.line == l })
}

// allApps are the apps, those of this program first.
func (s *stack) allApps() []app {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.apps
}

// app returns the app of a name.
func (s *stack) app(name string) (app, error) {
	var names []string
	for _, a := range s.allApps() {
		if a.line.Program == name {
			return a, nil
		}
		names = append(names, a.line.Program)
	}
	last := len(names) - 1
	return app{}, fmt.Errorf("%w: there is no app %q; there are %s and %s", api.ErrNotFound, name, strings.Join(names[:last], ", "), names[last])
}

// refuses returns why an action is not for an app. A singleton has one instance, of which readers see the rows. Those of the program are started by the
// system for all time: to delete the one that fills the raw lake would be to fill it no more.
func (a app) refuses(action control.Action) error {
	if a.descriptor.Versioned {
		return nil
	}
	switch {
	case a.plan != nil && (action == control.Start || action == control.Delete), action == control.Promote, action == control.Rollback:
		why := "it has one instance, and no data versions"
		if a.plan != nil {
			why = "the system starts its one instance, and it has no data versions"
		}
		return fmt.Errorf("%w: %s is a singleton: %s", control.ErrRefused, a.line.Program, why)
	}
	return nil
}

// parameters are those of a job, by the names that the talk has for them.
func (s *stack) parameters(ctx context.Context, a app, in control.Instance) (map[string]string, error) {
	startedBy, err := s.store.Instances.StartedBy(ctx, in)
	if err != nil {
		return nil, err
	}
	p := map[string]string{
		"accountId": in.Account, "envId": in.Env, "dataVersion": in.DataVersion, "program": in.Program, "version": in.Version, "uniqueId": in.UniqueID(), "startedBy": startedBy,
	}
	if len(a.sourceTypes) > 0 {
		p["sourceType"] = strings.Join(a.sourceTypes, ",")
	}
	if a.group != "" {
		p["jobGroup"] = a.group
	}
	return p, nil
}
