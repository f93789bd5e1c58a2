package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/control"
	"millrace/control/api"
	"millrace/engine"
)

// savepointsDir holds a folder of savepoints for each instance, by its unique id.
const savepointsDir = "savepoints"

func savepointCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "savepoint",
		Short: "States of the jobs to go back to: savepoints, kept on purpose, and checkpoints, which jobs make by themselves",
		Args:  unknownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(savepointCreateCommand(), savepointListCommand(), savepointVerifyCommand(), savepointRestoreCommand(), savepointDeleteCommand())
	return cmd
}

var savepointName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func checkSavepointName(name string) error {
	if !savepointName.MatchString(name) {
		return usagef("%q cannot name a savepoint: use 1 to 100 letters, digits, ., _ and -, beginning with a letter or digit", name)
	}
	return nil
}

func savepointCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create [NAME]",
		Short: "Make a savepoint of every job of a stopped data directory",
		Long: `Make a savepoint of every job of a stopped data directory. NAME is the time, unless given.
A savepoint shares files with the job's state until that changes, and the lake holds the snapshots that going back takes, as long as it is
there: see 'millrace savepoint delete'.`,
		Args: atMostOneArg("name"),
	}
	cfg := stoppedConfig()
	serverFlags(cmd, &cfg)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name := time.Now().UTC().Format("20060102T150405Z")
		if len(args) > 0 {
			name = args[0]
		}
		if err := checkSavepointName(name); err != nil {
			return err
		}
		if _, err := readDataDir(dataDirFlag(cmd)); err != nil { // not made for this
			return err
		}
		return withStack(cmd, cfg, slog.LevelWarn, func(ctx context.Context, s *stack) error {
			jobs := s.jobs()
			for _, j := range jobs {
				dir := s.cfg.dir.join(savepointsDir, j.instance.UniqueID(), name)
				if _, err := os.Stat(dir); err == nil {
					return fmt.Errorf("savepoint %s of %s exists already; choose another name, or remove %s", name, j.instance.UniqueID(), dir)
				}
			}
			for _, j := range jobs {
				if err := j.Savepoint(ctx, s.cfg.dir.join(savepointsDir, j.instance.UniqueID(), name)); err != nil {
					return err
				}
			}
			fmt.Fprintln(cmd.OutOrStdout(), name)
			return nil
		})
	}
	return cmd
}

// stoppedConfig is for commands that open a stack and do not serve: it listens where nobody looks.
func stoppedConfig() stackConfig {
	return stackConfig{listen: "127.0.0.1:0", prefix: defaultPrefix, logListen: "127.0.0.1:0", indexListen: "127.0.0.1:0", flush: time.Minute, memory: defaultMemory, jobMemory: jobMemoryFor(defaultMemory), corrections: defaultCorrections, restarts: defaultRestarts}
}

func atMostOneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usagef("%s: %q is one argument too many, it takes a %s", cmd.CommandPath(), args[1], what)
		}
		return nil
	}
}

// Kinds of a savepoint.
const (
	onPurpose = "savepoint"
	automatic = "checkpoint" // its name is checkpoint/<epoch>, which no savepoint made on purpose can have
)

// savepoint is one of an instance, as list and verify show it.
type savepoint struct {
	api.Savepoint
	err error
}

// savepoints are those of a data directory: by instance, those made on purpose before the checkpoints, the newest first.
func savepoints(dir *dataDir) ([]savepoint, error) {
	instances := map[string]bool{}
	for _, folder := range []string{savepointsDir, "jobs"} {
		entries, err := os.ReadDir(dir.join(folder))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read %s: %w", dir.join(folder), cause(err))
		}
		for _, e := range entries {
			// Beside a job's directory is what it was before a rewind, and what a rewind has not finished.
			if ext := filepath.Ext(e.Name()); e.IsDir() && ext != ".old" && ext != ".next" && !strings.HasPrefix(e.Name(), "tmp-") {
				instances[e.Name()] = true
			}
		}
	}
	all := []savepoint{}
	for _, i := range slices.Sorted(maps.Keys(instances)) {
		made, err := listed(i, onPurpose, dir.join(savepointsDir, i))
		if err != nil {
			return nil, err
		}
		checkpoints, err := listed(i, automatic, checkpointsOf(dir.join("jobs", i)))
		if err != nil {
			return nil, err
		}
		all = append(append(all, made...), checkpoints...)
	}
	return all, nil
}

// checkpointsOf is where a job has its checkpoints.
func checkpointsOf(job string) string { return filepath.Join(job, "checkpoints") }

func listed(instance, kind, folder string) (all []savepoint, err error) {
	found, err := engine.ListCheckpoints(nil, folder)
	if err != nil {
		return nil, err
	}
	for _, l := range found {
		p := savepoint{Savepoint: api.Savepoint{Name: filepath.Base(l.Dir), Kind: kind, Instance: instance, Dir: l.Dir}}
		if kind == automatic {
			p.Name = automatic + "/" + strings.TrimLeft(p.Name, "0")
		}
		if l.Err != nil && p.gone() {
			continue
		}
		p.Made, p.Version, p.Lineage, p.Epoch = l.Manifest.Made, l.Manifest.Version, l.Manifest.Lineage, l.Manifest.Epoch
		for _, f := range l.Manifest.Files {
			p.Bytes += f.Bytes
		}
		p.fail(l.Err)
		all = append(all, p)
	}
	return all, nil
}

// gone reports whether a running job has removed its checkpoint meanwhile.
func (p *savepoint) gone() bool {
	_, err := os.Stat(p.Dir)
	return p.Kind == automatic && errors.Is(err, fs.ErrNotExist)
}

func (p *savepoint) fail(err error) {
	if err != nil {
		p.err, p.Damage = err, err.Error()
	}
}

// named keeps those of a name, all of them when it is empty. There must be one.
func named(all []savepoint, name string, dir *dataDir) ([]savepoint, error) {
	if name != "" {
		all = slices.DeleteFunc(all, func(p savepoint) bool { return p.Name != name })
	}
	if len(all) == 0 && name != "" {
		return nil, fmt.Errorf("data directory %s has no savepoint %s; 'millrace savepoint list' shows those it has", dir.path, name)
	}
	return all, nil
}

func savepointListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the savepoints and checkpoints of all jobs", Args: exactArgs()}
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		all, err := listSavepoints(cmd)
		if err != nil {
			return err
		}
		if format == "json" {
			return printJSON(cmd, all)
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tKIND\tINSTANCE\tMADE\tVERSION\tLINEAGE\tEPOCH\tMB")
		for _, p := range all {
			if p.Damage != "" {
				fmt.Fprintf(w, "%s\t%s\t%s\tdamaged: %s\n", p.Name, p.Kind, p.Instance, p.Damage)
				continue
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%.1f\n", p.Name, p.Kind, p.Instance, p.Made.Format(time.RFC3339), p.Version, p.Lineage, p.Epoch, float64(p.Bytes)/1e6)
		}
		return w.Flush()
	}
	return cmd
}

// listSavepoints are those of what the command asks; those of a data directory are read there, whether or not a process uses it.
func listSavepoints(cmd *cobra.Command) (all []api.Savepoint, err error) {
	t, err := askedBy(cmd)
	if err != nil {
		return nil, err
	}
	if t.isRemote() {
		c, err := remoteClient(t)
		if err != nil {
			return nil, err
		}
		return all, c.do(cmd.Context(), http.MethodGet, api.SavepointsPath, nil, &all)
	}
	dir, err := readDataDir(dataDirFlag(cmd))
	if err != nil {
		return nil, err
	}
	return shownSavepoints(dir)
}

func shownSavepoints(dir *dataDir) ([]api.Savepoint, error) {
	found, err := savepoints(dir)
	all := make([]api.Savepoint, len(found))
	for i, p := range found {
		all[i] = p.Savepoint
	}
	return all, err
}

// Savepoints implements api.Service.
func (s *stack) Savepoints(context.Context) ([]api.Savepoint, error) {
	return shownSavepoints(s.cfg.dir)
}

func savepointDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a savepoint of a job",
		Long: `Delete a savepoint of a job. The lake lets go of the snapshots that it holds at the job's next start. It is refused while an operation is to go back to it, and while the data version is suspended with it.
Checkpoints go by themselves. It needs --instance, --yes and --reason.`,
		Args: exactArgs("the name of a savepoint; 'millrace savepoint list' lists them"),
	}
	ask := api.DeleteAsk{Who: whoAmI()}
	instance := cmd.Flags().String("instance", "", "unique id of the instance whose savepoint it is")
	cmd.Flags().StringVar(&ask.Reason, "reason", "", "why, for the audit log")
	yes := cmd.Flags().Bool("yes", false, "it is meant")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *instance == "" {
			return usagef("--instance: say whose savepoint %s is meant; 'millrace savepoint list' lists whose there are", args[0])
		}
		if !*yes {
			return usagef("this deletes savepoint %s of %s for good: give --yes, and --reason, if it is meant", args[0], *instance)
		}
		c, err := newClient(cmd)
		if err != nil {
			return err
		}
		var p api.Savepoint
		if err := c.do(cmd.Context(), http.MethodPost, api.SavepointsPath+"/"+url.PathEscape(*instance)+"/"+url.PathEscape(args[0])+"/delete", ask, &p); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "savepoint %s of %s is deleted\n", p.Name, p.Instance)
		return nil
	}
	return cmd
}

// deletedName is the name of a savepoint's folder while it is removed: it is none any more, whenever that ends.
const deletedName = "tmp-deleted"

// DeleteSavepoint implements api.Service.
func (s *stack) DeleteSavepoint(ctx context.Context, instance, name string) (none api.Savepoint, err error) {
	what := "the removal of savepoint " + name + " of " + instance
	if err := s.gate.enter(ctx, what); err != nil { // a backup links its files
		return none, err
	}
	defer s.gate.leave(what)
	all, err := savepoints(s.cfg.dir)
	if err != nil {
		return none, err
	}
	i := slices.IndexFunc(all, func(p savepoint) bool { return p.Kind == onPurpose && p.Instance == instance && p.Name == name })
	if i < 0 {
		return none, fmt.Errorf("%w: there is no savepoint %s of %s; 'millrace savepoint list' shows those there are", api.ErrNotFound, name, instance)
	}
	p := all[i].Savepoint
	if err := s.needsSavepoint(ctx, p); err != nil {
		return none, err
	}
	gone := filepath.Join(filepath.Dir(p.Dir), deletedName)
	err = os.RemoveAll(gone) // of a deletion that was killed
	if err == nil {
		err = os.Rename(p.Dir, gone)
	}
	if err == nil {
		err = os.RemoveAll(gone)
	}
	if err != nil {
		return none, fmt.Errorf("remove savepoint %s: %w; when it is not listed any more, the next deletion removes what is left of its files", p.Dir, cause(err))
	}
	return p, nil
}

// needsSavepoint returns an error while something needs a savepoint.
func (s *stack) needsSavepoint(ctx context.Context, p api.Savepoint) error {
	instances, err := s.store.Instances.List(ctx)
	if err != nil {
		return err
	}
	for _, in := range instances {
		if in.UniqueID() == p.Instance && in.State == control.Suspended && in.Savepoint == p.Name {
			return fmt.Errorf("%w: %s was suspended with savepoint %s, and may have to go on from it: resume it first", control.ErrRefused, p.Instance, p.Name)
		}
	}
	working, err := s.store.Instances.Working(ctx)
	if err != nil {
		return err
	}
	for _, op := range working {
		if (control.Instance{Line: op.Line, DataVersion: op.DataVersion}).UniqueID() == p.Instance && op.Savepoint == p.Name {
			return fmt.Errorf("%w: operation %d, %s, works with savepoint %s: wait for its end", control.ErrRefused, op.ID, op.Action, p.Name)
		}
	}
	return nil
}

func savepointVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [NAME]",
		Short: "Read savepoints and checkpoints whole; exit 1 when one is not what was written",
		Args:  atMostOneArg("name"),
	}
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := output()
		if err != nil {
			return err
		}
		dir, err := readDataDir(dataDirFlag(cmd))
		if err != nil {
			return err
		}
		all, err := savepoints(dir)
		if err != nil {
			return err
		}
		if all, err = named(all, append(args, "")[0], dir); err != nil {
			return err
		}
		if len(all) == 0 && format == "text" {
			fmt.Fprintf(cmd.OutOrStdout(), "data directory %s has neither savepoints nor checkpoints yet\n", dir.path)
		}
		var damaged []error
		for i := range all {
			_, err := engine.Verify(nil, all[i].Dir)
			if err != nil && all[i].gone() {
				continue
			}
			if all[i].fail(err); err != nil {
				damaged = append(damaged, err)
				continue
			}
			if format == "text" {
				fmt.Fprintf(cmd.OutOrStdout(), "%s of %s is good: epoch %d, %d bytes\n", all[i].Name, all[i].Instance, all[i].Epoch, all[i].Bytes)
			}
		}
		if format == "json" {
			if err := printJSON(cmd, all); err != nil {
				return err
			}
		}
		return errors.Join(damaged...)
	}
	return cmd
}

func savepointRestoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore NAME",
		Short: "Take the jobs of a stopped data directory back to a savepoint, or one of them to a checkpoint",
		Long: `Take the jobs of a stopped data directory back to a savepoint, or one of them to a checkpoint, checkpoint/EPOCH. A new lineage begins there: at the next start each job takes back what it
has published since to lake, index and topics, and reads the log again from the savepoint on.
The state that a job had is kept beside it, in jobs/<instance>.old, until the next restore; checkpoints that are not newer stay with the job.`,
		Args: exactArgs("the name of a savepoint"),
	}
	instance := cmd.Flags().String("instance", "", "take back this instance alone; default: all that have the savepoint")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if _, err := readDataDir(dataDirFlag(cmd)); err != nil {
			return err
		}
		dir, err := openStillDataDir(cmd.Context(), dataDirFlag(cmd))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, dir.Close()) }()
		all, err := savepoints(dir)
		if err != nil {
			return err
		}
		if all, err = named(all, args[0], dir); err != nil {
			return err
		}
		if *instance != "" {
			all = slices.DeleteFunc(all, func(p savepoint) bool { return p.Instance != *instance })
			if len(all) == 0 {
				return fmt.Errorf("there is no savepoint %s of %s; 'millrace savepoint list' shows whose there are", args[0], *instance)
			}
		}
		if len(all) > 1 && all[0].Kind == automatic { // each job counts its own epochs
			return usagef("several jobs have a %s, at different moments; name one of them with --instance", args[0])
		}
		for _, p := range all { // before anything is changed
			if _, err := engine.Verify(nil, p.Dir); err != nil {
				return err
			}
		}
		for _, p := range all {
			if err := rewindJob(dir.join("jobs", p.Instance), p); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is back at epoch %d, of %s\n", p.Instance, p.Epoch, p.Made.Format(time.RFC3339))
		}
		return nil
	}
	return cmd
}

// rewindJob takes a job that does not run back to a savepoint or checkpoint.
func rewindJob(job string, to savepoint) error {
	if err := engine.Rewind(nil, to.Dir, job, time.Now()); err != nil {
		return err
	}
	return keepCheckpoints(job, to.Epoch)
}

// keepCheckpoints gives a job that was taken back those checkpoints of the state before that are not newer: to go back further stays
// possible, and the lake keeps what it takes. Newer ones have the names that those of the new lineage will have.
func keepCheckpoints(job string, epoch uint64) error {
	all, err := engine.ListCheckpoints(nil, checkpointsOf(job+".old"))
	if err != nil {
		return err
	}
	for _, l := range all {
		if l.Err != nil || l.Manifest.Epoch > epoch {
			continue
		}
		if err := os.MkdirAll(checkpointsOf(job), 0o755); err != nil {
			return fmt.Errorf("keep checkpoint %s: %w", l.Dir, err)
		}
		if err := os.Rename(l.Dir, filepath.Join(checkpointsOf(job), filepath.Base(l.Dir))); err != nil {
			return fmt.Errorf("keep checkpoint %s: %w", l.Dir, err)
		}
	}
	return nil
}
