package main

import (
	"context"

	"millrace/control"
	"millrace/control/api"
	"millrace/control/local"
	"millrace/engine"
)

// Apps implements api.Service.
func (s *stack) Apps(ctx context.Context) ([]api.App, error) {
	all, err := s.store.Instances.List(ctx)
	if err != nil {
		return nil, err
	}
	var apps []api.App
	for _, a := range s.allApps() {
		if a, err = s.deployed(ctx, a); err != nil {
			return nil, err
		}
		out := api.App{
			Name: a.line.Program, Account: a.line.Account, Version: a.version, Description: a.descriptor.Description, Singleton: !a.descriptor.Versioned, SourceTypes: a.sourceTypes,
			Descriptor: a.descriptor, Instances: []api.Instance{},
		}
		for _, in := range all {
			j, ok := s.jobOf(in)
			if !ok || in.Line != a.line {
				continue
			}
			i := instanceStatus(j, in)
			for _, action := range control.Can(j.state(), control.Admin) {
				if a.refuses(action) == nil && action != control.Rollback { // that is an action on the app
					i.Can = append(i.Can, string(action))
				}
			}
			if i.Parameters, err = s.parameters(ctx, a, in); err != nil {
				return nil, err
			}
			out.Instances = append(out.Instances, i)
		}
		if a.descriptor.Versioned {
			now, wanted, err := s.store.Instances.Serving(ctx, a.line)
			if err != nil {
				return nil, err
			}
			if out.Serving = now; wanted != now {
				out.Promoting = wanted
			}
		}
		apps = append(apps, out)
	}
	return apps, nil
}

func instanceStatus(j *stackJob, in control.Instance) api.Instance {
	p := j.Progress()
	i := api.Instance{
		UniqueID: in.UniqueID(), DataVersion: in.DataVersion, Created: in.Created, Version: in.Version, State: string(j.stateOf(p)), Error: in.Error,
		Savepoint: in.Savepoint, Updated: in.Updated, UpdatedBy: in.UpdatedBy, Revision: in.Revision,
		Read: p.Read, Rows: p.Rows, LagRecords: p.Lag, Epoch: p.Epoch, Published: published(p),
	}
	gets := j.gets()
	i.Parallelism, i.Memory = gets.Parallelism, gets.Memory
	if err := j.trouble(); err != nil {
		i.Error = err.Error()
	}
	if x := p.Seeding; x != nil {
		i.Seeding = &api.Seeding{Rows: x.Rows, Read: x.Read, Kept: x.Kept, Done: x.Done}
		if !x.Done && j.stateOf(p) == control.Seeding {
			i.Seeding.RowsPerSecond = p.ReadRate
			if p.ReadRate > 0 && x.Read > 0 { // the rate counts records that are kept
				i.Seeding.RowsPerSecond = p.ReadRate * float64(x.Read) / float64(max(x.Kept, 1))
				i.Seeding.SecondsLeft = float64(x.Rows-x.Read) / i.Seeding.RowsPerSecond
			}
		}
	}
	return i
}

// published is the last epoch of which all sinks have published the rows.
func published(p engine.Progress) uint64 {
	epoch := p.Epoch
	for _, s := range p.Sinks {
		if s.PendingEpochs > 0 {
			epoch = min(epoch, s.Epoch)
		}
	}
	return epoch
}

// historyPage is how many operations one answer has at most.
const historyPage = 100

// History implements api.Service.
func (s *stack) History(ctx context.Context, app string, before int64) ([]control.Operation, error) {
	a, err := s.app(app)
	if err != nil {
		return nil, err
	}
	return s.store.Instances.History(ctx, a.line, before, historyPage)
}

// Instance implements api.Service.
func (s *stack) Instance(ctx context.Context, app, dataVersion string) (control.Instance, error) {
	j, err := s.find(app, dataVersion)
	if err != nil {
		return control.Instance{}, err
	}
	return s.store.Instances.Instance(ctx, j.controlled().Line, dataVersion)
}

// Log implements api.Service.
func (s *stack) Log(_ context.Context, app, dataVersion string, from api.LogStart) (uniqueID string, log api.Log, err error) {
	j, err := s.find(app, dataVersion)
	if err != nil {
		return "", nil, err
	}
	id := j.instance.UniqueID()
	r, err := local.ReadLog(local.LogFile(s.cfg.dir.join(processesDir, id)), local.LogStart{Lines: from.Lines, Bytes: from.Bytes, Position: from.Position, Follow: from.Follow})
	return id, r, err
}

// Jobs implements api.Service.
func (s *stack) Jobs(ctx context.Context, app, dataVersion string) ([]control.Job, error) {
	j, err := s.find(app, dataVersion)
	if err != nil {
		return nil, err
	}
	return s.store.Instances.Jobs(ctx, j.controlled().Line, dataVersion, historyPage)
}

// Operation implements api.Service.
func (s *stack) Operation(ctx context.Context, id int64) (control.Operation, error) {
	op, err := s.plane.Wait(ctx, id)
	if err != nil && ctx.Err() != nil { // as it is
		return s.store.Instances.Operation(context.WithoutCancel(ctx), id)
	}
	return op, err
}
