package lake

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/apache/iceberg-go/table"
	"github.com/twmb/avro/ocf"

	"millrace/plan"
)

// completeSummaries gives the manifest list of a snapshot that is about to be committed the bounds of empty texts. iceberg-go writes them as null, which says
// that a partition field has no values: every reader then leaves out the manifest, and with it rows of other values beside them. A list
// that an earlier version wrote without them is made good as well, because the new one takes over what it says.
func (t *Table) completeSummaries(tx *table.Transaction) error {
	if !slices.ContainsFunc(t.partition, func(f plan.PartitionField) bool { return f.Transform == plan.Identity }) {
		return nil
	}
	staged, err := tx.StagedTable()
	if err != nil {
		return err
	}
	snapshot := staged.CurrentSnapshot()
	if snapshot == nil || snapshot.ManifestList == "" {
		return nil
	}
	if now := t.seen().CurrentSnapshot(); now != nil && now.SnapshotID == snapshot.SnapshotID {
		return nil // nothing is added
	}
	fsys, list := t.lake.fsys, snapshot.ManifestList
	content, err := fsys.ReadFile(list)
	if err != nil {
		return fmt.Errorf("complete %s: %w", list, err)
	}
	complete, err := withEmptyBounds(content)
	if err != nil || complete == nil {
		if err != nil {
			err = fmt.Errorf("complete %s: %w", list, err)
		}
		return err
	}
	return errors.Join(fsys.Remove(list), fsys.WriteFile(list, complete)) // nothing refers to it yet
}

// withEmptyBounds returns a manifest list with the bounds that are missing, nil when none is.
func withEmptyBounds(content []byte) ([]byte, error) {
	in, err := ocf.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	about := map[string][]byte{}
	for name, value := range in.Metadata() {
		if !strings.HasPrefix(name, "avro.") {
			about[name] = value
		}
	}
	var out bytes.Buffer
	w, err := ocf.NewWriter(&out, in.Schema(), ocf.WithMetadata(about), ocf.WithSchema(string(in.Metadata()["avro.schema"])))
	if err != nil {
		return nil, err
	}
	missing := false
	for {
		var manifest map[string]any
		if err := in.Decode(&manifest); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		summaries, _ := manifest["partitions"].([]any)
		for _, s := range summaries {
			if fields, ok := s.(map[string]any); ok && addEmptyBounds(fields) {
				missing = true
			}
		}
		if err := w.Encode(manifest); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil || !missing {
		return nil, err
	}
	return out.Bytes(), nil
}

// addEmptyBounds adds the bounds that a summary of a partition field lacks. A field without null and NaN has values, and so has one with an upper bound.
func addEmptyBounds(summary map[string]any) (added bool) {
	null, _ := summary["contains_null"].(bool)
	nan, _ := summary["contains_nan"].(bool)
	if summary["upper_bound"] == nil && !null && !nan {
		summary["upper_bound"], added = []byte{}, true
	}
	if summary["lower_bound"] == nil && summary["upper_bound"] != nil {
		summary["lower_bound"], added = []byte{}, true
	}
	return added
}
