package engine

import (
	"cmp"
	"slices"
)

// stageSize is how much state a stage has, before compression. It is kept by adding up what each epoch changes.
type stageSize struct {
	Keys       int64 `json:"keys"` // that have a value
	ValueBytes int64 `json:"value_bytes"`
	Items      int64 `json:"items"` // of all lists
	ItemBytes  int64 `json:"item_bytes"`
}

// StageProgress is how much state a keyed stage has. Bytes are those of the stage's own encoding; what they take on disk is less
// or more.
type StageProgress struct {
	Name       string
	Keys       int64 // that have a value
	ValueBytes int64
	Items      int64 // in the lists of all keys: records that wait, or may still be corrected
	ItemBytes  int64
}

// measure adds what an epoch changes.
func (r *epochRecord) measure(stageIDs []uint16, keys [][]keyed) {
	for stage := range keys {
		if len(keys[stage]) == 0 {
			continue
		}
		size := r.Sizes[stageIDs[stage]]
		for i := range keys[stage] {
			size.add(&keys[stage][i])
		}
		r.Sizes[stageIDs[stage]] = size
	}
}

func (s *stageSize) add(k *keyed) {
	if k.SetValue != nil {
		if len(k.Value) > 0 {
			s.Keys--
			s.ValueBytes -= int64(len(k.Value))
		}
		if len(k.SetValue) > 0 {
			s.Keys++
			s.ValueBytes += int64(len(k.SetValue))
		}
	}
	if k.ReplaceList {
		s.Items -= int64(len(k.List))
		for _, it := range k.List {
			s.ItemBytes -= int64(len(it))
		}
	}
	s.Items += int64(len(k.Append))
	for _, it := range k.Append {
		s.ItemBytes += int64(len(it))
	}
}

// sizesOf returns the sizes of the stages that there are still.
func sizesOf(ids map[string]uint16, sizes map[uint16]stageSize) map[uint16]stageSize {
	out := map[uint16]stageSize{}
	for _, id := range ids {
		out[id] = sizes[id]
	}
	return out
}

// stageProgress returns the sizes by name, in order of names.
func stageProgress(ids map[string]uint16, sizes map[uint16]stageSize) []StageProgress {
	out := make([]StageProgress, 0, len(ids))
	for name, id := range ids {
		s := sizes[id]
		out = append(out, StageProgress{name, s.Keys, s.ValueBytes, s.Items, s.ItemBytes})
	}
	slices.SortFunc(out, func(a, b StageProgress) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
