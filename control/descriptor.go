package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Descriptor says how an app is run: the deployment descriptor of the talk "Streaming ETL with Flink and Elasticsearch", with its names.
type Descriptor struct {
	Type        string `json:"type"`        // datastream-app
	Description string `json:"description"` // for people
	Multitenant bool   `json:"multitenant"` // it serves several accounts and envs

	// Versioned apps have data versions. One that is not is a singleton: it has one instance, unversioned.
	Versioned bool `json:"versioned"`

	// SeedingEnabled apps may begin with records of the raw lake: those of EnabledSeedingTargets, which are source types in whatever case.
	SeedingEnabled        bool     `json:"seedingEnabled"`
	SeedingType           string   `json:"seedingType,omitempty"` // datasource_type
	EnabledSeedingTargets []string `json:"enabledSeedingTargets,omitempty"`
}

// Values of a descriptor.
const (
	DataStreamApp  = "datastream-app"
	DataSourceType = "datasource_type"
)

// ParseDescriptor reads a descriptor. Its errors name the file, line and column, the field, and what is wanted.
func ParseDescriptor(file string, text []byte) (d Descriptor, err error) {
	at := func(offset int64, format string, args ...any) error {
		before := text[:max(0, min(int(offset), len(text)))]
		line := bytes.Count(before, []byte("\n")) + 1
		column := len(before) - bytes.LastIndexByte(before, '\n')
		return fmt.Errorf("%s:%d:%d: %s", file, line, column, fmt.Sprintf(format, args...))
	}
	fields := map[string]reflect.Value{}
	var names []string
	v := reflect.ValueOf(&d).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		fields[name] = v.Field(i)
		names = append(names, name)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	malformed := func(err error) error {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return at(syntax.Offset-1, "%s", syntax)
		}
		return at(int64(len(text)), "it ends in the middle of the object")
	}
	if start, err := dec.Token(); err != nil {
		return d, malformed(err)
	} else if start != json.Delim('{') {
		return d, at(0, "a descriptor is an object: { \"type\": %q, … }", DataStreamApp)
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return d, malformed(err)
		}
		name, _ := token.(string) // a key is one
		place := dec.InputOffset() - int64(len(name)) - 2
		field, known := fields[name]
		switch {
		case !known:
			return d, at(place, "there is no field %q; did you mean %q? the fields are %s", name, Nearest(name, names), strings.Join(names, ", "))
		case seen[name]:
			return d, at(place, "field %q is there twice; leave one out", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return d, malformed(err)
		}
		if err := json.Unmarshal(value, field.Addr().Interface()); err != nil || string(value) == "null" {
			return d, at(dec.InputOffset()-int64(len(value)), "field %q is %s; want %s", name, value, wanted[field.Kind()])
		}
	}
	if _, err := dec.Token(); err != nil {
		return d, malformed(err)
	}
	if dec.More() {
		return d, at(dec.InputOffset(), "something comes after the object")
	}
	if err := d.check(); err != nil {
		return d, fmt.Errorf("%s: %w", file, err)
	}
	return d, nil
}

var wanted = map[reflect.Kind]string{reflect.String: "a text in quotes", reflect.Bool: "true or false", reflect.Slice: "a list of texts in quotes"}

// check returns what is wrong with the values.
func (d Descriptor) check() error {
	switch {
	case d.Type != DataStreamApp:
		return fmt.Errorf("type is %q; the type that there is is %q", d.Type, DataStreamApp)
	case strings.TrimSpace(d.Description) == "":
		return errors.New("description is missing: say in a line what the app is for")
	case !d.SeedingEnabled && (d.SeedingType != "" || len(d.EnabledSeedingTargets) > 0):
		return errors.New("seedingType and enabledSeedingTargets are for an app with seedingEnabled; set that to true, or leave them out")
	case d.SeedingEnabled && !d.Versioned:
		return errors.New("seedingEnabled is for versioned apps: a singleton has one instance, which is not filled anew; set versioned to true, or seedingEnabled to false")
	case d.SeedingEnabled && d.SeedingType != DataSourceType:
		return fmt.Errorf("seedingType is %q; the type that there is is %q", d.SeedingType, DataSourceType)
	case d.SeedingEnabled && len(d.EnabledSeedingTargets) == 0:
		return errors.New("enabledSeedingTargets is empty: name the source types that the app may be seeded with, such as edgenuity_lms")
	}
	for i, t := range d.EnabledSeedingTargets {
		if !word.MatchString(t) {
			return fmt.Errorf("enabledSeedingTargets has %q, which is no source type: use 1 to 64 letters, digits, _ and -", t)
		}
		if slices.ContainsFunc(d.EnabledSeedingTargets[:i], func(o string) bool { return strings.EqualFold(o, t) }) {
			return fmt.Errorf("enabledSeedingTargets has %q twice; leave one out", t)
		}
	}
	return nil
}

// SeedsFrom reports whether the app may be seeded with records of a source type.
func (d Descriptor) SeedsFrom(sourceType string) bool {
	return d.SeedingEnabled && slices.ContainsFunc(d.EnabledSeedingTargets, func(t string) bool { return strings.EqualFold(t, sourceType) })
}

// Nearest is the name that takes the fewest changes of letters to be written as text is.
func Nearest(text string, names []string) string {
	return slices.MinFunc(names, func(a, b string) int { return distance(text, a) - distance(text, b) })
}

// distance is Levenshtein's, whatever the case.
func distance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
