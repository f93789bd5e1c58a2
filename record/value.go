package record

import (
	"fmt"
	"strconv"
	"unsafe"
)

// ValueKind says what a value is in JSON's terms.
type ValueKind uint8

// Missing, the zero value, is the kind of a path that leads nowhere.
const (
	Missing ValueKind = iota
	Null
	Bool
	Number
	String
	Object
	Array
)

// String names a kind as a sentence does: no value, null, a number.
func (k ValueKind) String() string {
	switch k {
	case Missing:
		return "no value"
	case Null:
		return "null"
	case Bool:
		return "a boolean"
	case Number:
		return "a number"
	case String:
		return "a string"
	case Object:
		return "an object"
	case Array:
		return "an array"
	}
	return "unknown"
}

// Value is where one JSON value lies in a document. It shares the document's memory and is valid as long as that is.
type Value struct {
	Raw  []byte // exactly the value's bytes, a string with its quotes; nil when missing
	Kind ValueKind
}

// kindOf tells a valid value's kind from its first byte.
func kindOf(c byte) ValueKind {
	switch c {
	case '"':
		return String
	case '{':
		return Object
	case '[':
		return Array
	case 'n':
		return Null
	case 't', 'f':
		return Bool
	}
	return Number
}

func valueOf(raw []byte) Value {
	return Value{Raw: raw[:len(raw):len(raw)], Kind: kindOf(raw[0])}
}

// IsSet reports whether there is a value other than null.
func (v Value) IsSet() bool { return v.Kind > Null }

// Bool returns a boolean's value; the second result is false for every other kind.
func (v Value) Bool() (value, isBool bool) {
	return v.Kind == Bool && v.Raw[0] == 't', v.Kind == Bool
}

// Float returns a number's value, rounded to the nearest. It fails for other kinds and for numbers beyond a float64.
func (v Value) Float() (float64, error) {
	if v.Kind != Number {
		return 0, fmt.Errorf("%v is not a number", v.Kind)
	}
	f, err := strconv.ParseFloat(string(v.Raw), 64)
	if err != nil {
		return 0, fmt.Errorf("number %s is out of range", clip(v.Raw))
	}
	return f, nil
}

// Int returns a whole number's value, however it is spelled: 15, 15.0 and 1.5e1 are the same. It fails for other kinds, for
// fractions and for numbers beyond an int64.
func (v Value) Int() (int64, error) {
	if v.Kind != Number {
		return 0, fmt.Errorf("%v is not a whole number", v.Kind)
	}
	if i, err := strconv.ParseInt(string(v.Raw), 10, 64); err == nil {
		return i, nil
	}
	var buf [64]byte
	d := parseDecimal(v.Raw, buf[:0])
	switch {
	case d.zero():
		return 0, nil
	case d.exp < 0:
		return 0, fmt.Errorf("number %s is not whole", clip(v.Raw))
	case d.huge || d.exp > 18 || len(d.digits) > 19:
		return 0, fmt.Errorf("number %s is out of range", clip(v.Raw))
	}
	text := make([]byte, 0, 64)
	if d.negative {
		text = append(text, '-')
	}
	text = append(text, d.digits...)
	for range d.exp {
		text = append(text, '0')
	}
	i, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("number %s is out of range", clip(v.Raw))
	}
	return i, nil
}

// clip shortens a number for a message.
func clip(raw []byte) string {
	const most = 40
	if len(raw) <= most {
		return string(raw)
	}
	return string(raw[:most]) + "…"
}

// Text returns a string's decoded text; the second result is false for every other kind.
func (v Value) Text() (string, bool) {
	if v.Kind != String {
		return "", false
	}
	body := v.Raw[1 : len(v.Raw)-1]
	if !hasEscape(body) {
		return string(body), true
	}
	return string(appendDecoded(nil, body)), true
}

// AppendText appends a string's decoded text to dst; for every other kind it appends nothing and returns false.
func (v Value) AppendText(dst []byte) ([]byte, bool) {
	if v.Kind != String {
		return dst, false
	}
	return appendDecoded(dst, v.Raw[1:len(v.Raw)-1]), true
}

// Each calls fn with the elements of an array, in order, until fn returns an error, which Each returns. A value that is no
// array counts as its own only element, as in JSON-LD; a missing value and null have none.
func (v Value) Each(fn func(Value) error) error {
	if !v.IsSet() {
		return nil
	}
	if v.Kind != Array {
		return fn(v)
	}
	d, f := v.Raw, noFault
	i := next(d, 1)
	if i < len(d) && d[i] == ']' {
		return nil
	}
	for {
		from := i
		if i, f = skipValue(d, from, 1); f != noFault {
			return syntaxError(d, i, f)
		}
		if err := fn(valueOf(d[from:i])); err != nil {
			return err
		}
		if i = next(d, i); i >= len(d) {
			return syntaxError(d, i, faultEnd)
		}
		switch d[i] {
		case ',':
			i = next(d, i+1)
		case ']':
			return nil
		default:
			return syntaxError(d, i, faultComma)
		}
	}
}

// Members calls fn with an object's members, in the order written and with every duplicate, until fn returns an error,
// which Members returns. The key is decoded and only valid during the call. A missing value and null have no members;
// other kinds are an error.
func (v Value) Members(fn func(key []byte, v Value) error) error {
	if !v.IsSet() {
		return nil
	}
	if v.Kind != Object {
		return fmt.Errorf("%v has no members", v.Kind)
	}
	var decoded []byte
	d, f, escaped := v.Raw, noFault, false
	i := next(d, 1)
	if i < len(d) && d[i] == '}' {
		return nil
	}
	for {
		from := i
		if i, escaped, f = skipName(d, i); f != noFault {
			return syntaxError(d, i, f)
		}
		key := d[from+1 : i-1]
		if escaped {
			decoded = appendDecoded(decoded[:0], key)
			key = decoded
		}
		if i, f = skipColon(d, i); f != noFault {
			return syntaxError(d, i, f)
		}
		from = i
		if i, f = skipValue(d, from, 1); f != noFault {
			return syntaxError(d, i, f)
		}
		if err := fn(key, valueOf(d[from:i])); err != nil {
			return err
		}
		if i = next(d, i); i >= len(d) {
			return syntaxError(d, i, faultEnd)
		}
		switch d[i] {
		case ',':
			i = next(d, i+1)
		case '}':
			return nil
		default:
			return syntaxError(d, i, faultComma)
		}
	}
}

// Offset returns where in doc a value lies that was found in doc. It means nothing for a missing value and for other
// documents.
func (v Value) Offset(doc []byte) int {
	return int(uintptr(unsafe.Pointer(unsafe.SliceData(v.Raw))) - uintptr(unsafe.Pointer(unsafe.SliceData(doc))))
}
