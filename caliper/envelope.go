package caliper

import (
	"errors"
	"fmt"
	"time"

	"millrace/record"
)

// What ReadEnvelope's errors wrap.
var (
	ErrMalformed          = errors.New("not a Caliper envelope")            // answered with 400
	ErrUnsupportedVersion = errors.New("this dataVersion is not supported") // answered with 422
)

// Envelope is one POST of a sensor.
type Envelope struct {
	Sensor      string
	SendTime    time.Time
	DataVersion string // as sent; empty in Caliper 1.0
	Items       []EnvelopeItem
}

// EnvelopeItem is one element of an envelope's data.
type EnvelopeItem struct {
	Raw  []byte // exactly its bytes, a sub-slice of the body
	Head Head   // what could be read of it, when Err is set
	Err  error  // why it must be quarantined: a *record.SyntaxError whose offset counts from the item's begin, or Problems
}

// SupportedVersions returns the contexts that a dataVersion may name; extensions of profiles below them are supported too.
func SupportedVersions() []string {
	return []string{
		"http://purl.imsglobal.org/ctx/caliper/v1/Context",
		"http://purl.imsglobal.org/ctx/caliper/v1p1",
		"http://purl.imsglobal.org/ctx/caliper/v1p2",
	}
}

const (
	envelopeSensor = iota
	envelopeSendTime
	envelopeDataVersion
	envelopeData
	envelopeCount
)

var envelopePaths = mustCompile("sensor", "sendTime", "dataVersion", "data")

// ReadEnvelope reads an envelope and the head of each of its items. An item that is not acceptable has its Err set and
// does not hold up the others, also when its strings hold control characters, invalid UTF-8 or invalid escapes, or it nests
// too deep: faults that leave no doubt where the item ends. All other faults of syntax, and these outside of an item,
// refuse the envelope.
//
// The error wraps ErrMalformed or ErrUnsupportedVersion, and the *record.SyntaxError if there is one.
func ReadEnvelope(body []byte) (*Envelope, error) {
	var v [envelopeCount]record.Value
	clean, masked := body, false // what the values are found in, at the same places as in body
	if err := envelopePaths.Scan(body, v[:]); err != nil {
		clean, masked = mask(body), true
		if envelopePaths.Scan(clean, v[:]) != nil {
			return nil, malformed(err)
		}
	}
	envelope, version, err := readEnvelopeFields(clean, v[:])
	if err != nil {
		return nil, err
	}

	end := 0 // of the last item
	err = v[envelopeData].Each(func(item record.Value) error {
		from := item.Offset(clean)
		to := from + len(item.Raw)
		raw := body[from:to:to]
		head, err := readHead(raw, version)
		envelope.Items = append(envelope.Items, EnvelopeItem{Raw: raw, Head: head, Err: err})
		if masked {
			copy(clean[end:from], body[end:from]) // see below
		}
		end = to
		return nil
	})
	if err != nil {
		return nil, malformed(err)
	}
	if len(envelope.Items) == 0 {
		return nil, fmt.Errorf("%w: its data is empty", ErrMalformed)
	}
	if masked {
		// What was masked outside of the items is back in place and refuses the envelope.
		copy(clean[end:], body[end:])
		if err := record.Validate(clean); err != nil {
			return nil, malformed(err)
		}
	}
	return envelope, nil
}

func malformed(err error) error { return fmt.Errorf("%w: %w", ErrMalformed, err) }

// readEnvelopeFields reads all but the items, and tells the version that they have if they do not say.
func readEnvelopeFields(body []byte, v []record.Value) (*Envelope, string, error) {
	if !isObject(body) {
		return nil, "", fmt.Errorf("%w: it is not an object", ErrMalformed)
	}
	if kind := v[envelopeData].Kind; kind == record.Missing || kind == record.Null {
		return nil, "", fmt.Errorf("%w: it has no data", ErrMalformed)
	} else if kind != record.Array && kind != record.Object {
		return nil, "", fmt.Errorf("%w: its data is %v, not an array", ErrMalformed, kind)
	}
	var (
		e  Envelope
		ps Problems
	)
	if e.Sensor = ps.text("sensor", v[envelopeSensor]); e.Sensor == "" && len(ps) == 0 {
		ps.add("sensor", "it is missing")
	}
	if absent(v[envelopeSendTime]) {
		ps.add("sendTime", "it is missing")
	} else {
		e.SendTime = ps.time("sendTime", v[envelopeSendTime])
	}
	e.DataVersion = ps.text("dataVersion", v[envelopeDataVersion])
	if err := ps.err(); err != nil {
		return nil, "", malformed(err)
	}
	if e.DataVersion == "" {
		return &e, "", nil
	}
	version := versionOf(e.DataVersion)
	if version == "" {
		return nil, "", fmt.Errorf("%w: %q; use one of %q", ErrUnsupportedVersion, clip([]byte(e.DataVersion)), SupportedVersions())
	}
	return &e, version, nil
}
