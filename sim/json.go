package sim

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// dialect is how an item is spelled.
type dialect uint8

const (
	v1p0    dialect = iota // @id and @type, IRIs for terms, a context on every object
	v1p1                   // id and type, short terms, at most one context
	blended                // as in the talk: "@id" everywhere, "@type" outside, "type" and short terms inside
)

const (
	context10 = "http://purl.imsglobal.org/ctx/caliper/v1/Context"
	context11 = "http://purl.imsglobal.org/ctx/caliper/v1p1"
	types10   = "http://purl.imsglobal.org/caliper/v1/"
	actions10 = "http://purl.imsglobal.org/vocab/caliper/v1/action#"
	roles10   = "http://purl.imsglobal.org/vocab/lis/v2/membership#"
	status10  = "http://purl.imsglobal.org/vocab/lis/v2/status#"
)

// enc writes JSON in the order it is told. Members are separated by looking at the last byte written.
type enc struct {
	b       []byte
	style   dialect
	depth   int
	padded  bool
	context bool // on a 1.1 item
}

func (e *enc) sep() {
	if n := len(e.b); n > 0 {
		switch e.b[n-1] {
		case '{', '[', ':', ',':
		default:
			e.b = append(e.b, ',')
		}
	}
}

func (e *enc) key(k string) {
	e.sep()
	e.b = append(e.b, '"')
	e.b = append(e.b, k...)
	e.b = append(e.b, '"', ':')
}

// obj opens the object that is the value of key, or an array's next element when key is empty.
func (e *enc) obj(key string) {
	if key == "" {
		e.sep()
	} else {
		e.key(key)
	}
	e.b = append(e.b, '{')
	e.depth++
}

func (e *enc) end() {
	e.b = append(e.b, '}')
	e.depth--
}

func (e *enc) arr(key string) {
	e.key(key)
	e.b = append(e.b, '[')
}

func (e *enc) endArr() { e.b = append(e.b, ']') }

func (e *enc) str(key, v string) {
	e.key(key)
	e.quote(v)
}

func (e *enc) elem(v string) {
	e.sep()
	e.quote(v)
}

// quote writes a string that may hold anything but control characters.
func (e *enc) quote(v string) {
	e.b = append(e.b, '"')
	for _, r := range v {
		if r == '"' || r == '\\' {
			e.b = append(e.b, '\\')
		}
		e.b = utf8.AppendRune(e.b, r)
	}
	e.b = append(e.b, '"')
}

func (e *enc) raw(key, v string) {
	e.key(key)
	e.b = append(e.b, v...)
}

func (e *enc) num(key string, v int) {
	e.key(key)
	e.b = strconv.AppendInt(e.b, int64(v), 10)
}

// score writes a number with one decimal, as sensors written in Java do.
func (e *enc) score(key string, v float64) {
	e.key(key)
	e.b = strconv.AppendFloat(e.b, v, 'f', 1, 64)
}

func (e *enc) time(key string, ms int64) {
	e.key(key)
	e.b = append(e.b, '"')
	e.b = time.UnixMilli(ms).UTC().AppendFormat(e.b, "2006-01-02T15:04:05.000Z")
	e.b = append(e.b, '"')
}

// duration writes both forms that there are: seconds alone, and minutes and seconds.
func (e *enc) duration(key string, ms int64) {
	s := ms / 1000
	v := "PT" + strconv.FormatInt(s, 10) + "S"
	if e.style == v1p1 {
		v = "PT" + strconv.FormatInt(s/60, 10) + "M" + strconv.FormatInt(s%60, 10) + "S"
	}
	e.str(key, v)
}

// spellsOut reports whether terms are IRIs here: in 1.0, and on the outside of a blended item.
func (e *enc) spellsOut() bool { return e.style == v1p0 || e.style == blended && e.depth == 1 }

func (e *enc) idKey() string {
	if e.style == v1p1 {
		return "id"
	}
	return "@id"
}

func (e *enc) typ(name string) {
	switch {
	case !e.spellsOut():
		e.str("type", name)
	case lisTypes[name]:
		e.str("@type", types10+"lis/"+name)
	default:
		e.str("@type", types10+name)
	}
}

var lisTypes = map[string]bool{
	"Person": true, "Membership": true, "CourseSection": true, "CourseOffering": true, "Group": true,
}

// entity opens an object that is an entity.
func (e *enc) entity(key, typ, id string) {
	e.obj(key)
	if e.style == v1p0 {
		e.str("@context", context10)
	} else if e.depth == 1 && e.style == v1p1 && e.context {
		e.str("@context", context11)
	}
	e.str(e.idKey(), id)
	e.typ(typ)
}

// pad writes the empties that 1.0 sensors send. Members that have a value must not be among them.
func (e *enc) pad(keys ...string) {
	if !e.padded {
		return
	}
	for _, k := range keys {
		switch k {
		case "extensions":
			e.raw(k, "{}")
		case "keywords", "objectType", "alignedLearningObjective":
			e.raw(k, "[]")
		default:
			e.raw(k, "null")
		}
	}
}

// ref writes an entity as a bare IRI.
func (e *enc) ref(key, id string) {
	if key == "" {
		e.elem(id)
		return
	}
	e.str(key, id)
}

func (e *enc) action(name string) {
	if e.spellsOut() {
		name = actions10 + name
	}
	e.str("action", name)
}

func (e *enc) roles(role string) {
	if e.style == v1p0 {
		role = roles10 + role
	}
	e.arr("roles")
	e.elem(role)
	e.endArr()
	status := "Active"
	if e.style == v1p0 {
		status = status10 + status
	}
	e.str("status", status)
}
