package etl

import (
	"bytes"

	"millrace/plan"
)

// dedup lets the first delivery of each event and of each entity version through. Its state is the fingerprints seen under the
// key's identity: one with the same identity and another content is no duplicate, it passes and is counted as a conflict.
func (p *program) dedup(_ plan.Clock, keys []*plan.Key, out *plan.Output) {
	for _, k := range keys {
		seen := k.Value
		for _, in := range k.Inputs {
			fingerprint := in.Payload[:16]
			if contains(seen, fingerprint) {
				out.Count(p.counts.duplicates, 1)
				continue
			}
			if len(seen) > 0 {
				out.Count(p.counts.conflicts, 1)
			}
			seen = append(seen[:len(seen):len(seen)], fingerprint...)
			k.SetValue = seen
			r := reader{b: in.Payload[16:]}
			r.deliver(out)
			if err := r.end(); err != nil {
				panic(err) // read wrote it in this very epoch
			}
		}
	}
}

func contains(seen, fingerprint []byte) bool {
	for ; len(seen) >= 16; seen = seen[16:] {
		if bytes.Equal(seen[:16], fingerprint) {
			return true
		}
	}
	return false
}
