package record

import "fmt"

// MaxDepth is how deep arrays and objects may nest: a document that is an array of scalars has depth 1.
const MaxDepth = 128

// SyntaxError says where and why a document is not acceptable JSON.
type SyntaxError struct {
	Offset int    // of the byte at fault, from 0; the document's length when it ends too early
	Reason string // what is wrong there: control character 0x09 in a string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("invalid JSON at byte %d: %s", e.Offset, e.Reason)
}

// fault is a reason in a register: the scanning functions return it beside the offset and nothing is formatted or
// allocated before the outermost one knows that the document is refused.
type fault uint8

const (
	noFault fault = iota
	faultEnd
	faultValue
	faultName
	faultColon
	faultComma
	faultTrailing
	faultControl
	faultUTF8
	faultEscape
	faultNumber
	faultLiteral
	faultDepth
)

var faultReasons = [...]string{
	faultEnd:      "it ends too early",
	faultValue:    "expected a value",
	faultName:     "expected a member name in double quotes",
	faultColon:    "expected a colon after a member name",
	faultComma:    "expected a comma or the closing bracket",
	faultTrailing: "there is more after the end of the value",
	faultUTF8:     "invalid UTF-8 in a string",
	faultEscape:   "invalid escape in a string",
	faultNumber:   "invalid number",
	faultLiteral:  "expected true, false or null",
	faultDepth:    fmt.Sprintf("nested deeper than %d", MaxDepth),
}

func syntaxError(d []byte, at int, f fault) *SyntaxError {
	if f == faultControl {
		return &SyntaxError{Offset: at, Reason: fmt.Sprintf("control character 0x%02x in a string", d[at])}
	}
	return &SyntaxError{Offset: at, Reason: faultReasons[f]}
}
