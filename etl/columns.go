package etl

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unsafe"

	"millrace/plan"
)

// columns maps a row struct to a schema, and its fields to cells.
//
//	Go                              column
//	string, bool, float64           string, boolean, double
//	int64, int, int32               long
//	time.Time                       timestamp-micros
//	[]string, []byte                array of string, bytes
//	*T of the scalar ones           the same, nullable
//
// The tag `avro:"name"` names the column, `doc:"…"` describes it.
type columns struct {
	schema plan.Schema
	cells  []func(field unsafe.Pointer) plan.Cell
	offset []uintptr
}

func columnsOf(t reflect.Type) (*columns, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("row type %s is not a struct", t)
	}
	c := &columns{schema: plan.Schema{Name: t.Name()}}
	var errs []error
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			errs = append(errs, fmt.Errorf("field %s of %s is not exported", f.Name, t))
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("avro"), ",")
		if name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		typ, nullable, cell := cellOf(f.Type)
		if cell == nil {
			errs = append(errs, fmt.Errorf("field %s of %s has type %s; a column is a string, bool, int64, float64, time.Time, []byte, []string, or a pointer to a scalar one", f.Name, t, f.Type))
			continue
		}
		c.schema.Columns = append(c.schema.Columns, plan.Column{Name: name, Type: typ, Nullable: nullable, Doc: f.Tag.Get("doc")})
		c.cells = append(c.cells, cell)
		c.offset = append(c.offset, f.Offset)
	}
	return c, errors.Join(errs...)
}

// append encodes the row that lies at p.
func (c *columns) append(dst []byte, p unsafe.Pointer, cells []plan.Cell) ([]byte, error) {
	for i, cell := range c.cells {
		cells[i] = cell(unsafe.Add(p, c.offset[i]))
	}
	return c.schema.Append(dst, cells)
}

var (
	timeType    = reflect.TypeFor[time.Time]()
	bytesType   = reflect.TypeFor[[]byte]()
	stringsType = reflect.TypeFor[[]string]()
)

func cellOf(t reflect.Type) (typ plan.Type, nullable bool, cell func(unsafe.Pointer) plan.Cell) {
	switch {
	case t == timeType:
		return plan.Timestamp, false, func(p unsafe.Pointer) plan.Cell { return plan.Cell{Int: (*time.Time)(p).UnixMicro()} }
	case t == bytesType:
		return plan.Bytes, false, func(p unsafe.Pointer) plan.Cell { return plan.Cell{Bytes: *(*[]byte)(p)} }
	case t == stringsType:
		return plan.Strings, false, func(p unsafe.Pointer) plan.Cell {
			ss := *(*[]string)(p)
			list := make([][]byte, len(ss))
			for i, s := range ss {
				list[i] = []byte(s)
			}
			return plan.Cell{List: list}
		}
	case t.Kind() == reflect.Pointer:
		typ, nullable, inner := cellOf(t.Elem())
		if inner == nil || nullable || typ == plan.Bytes || typ == plan.Strings {
			return 0, false, nil
		}
		return typ, true, func(p unsafe.Pointer) plan.Cell {
			field := *(*unsafe.Pointer)(p)
			if field == nil {
				return plan.Cell{Null: true}
			}
			return inner(field)
		}
	}
	switch t.Kind() {
	case reflect.String:
		return plan.String, false, func(p unsafe.Pointer) plan.Cell {
			s := *(*string)(p)
			return plan.Cell{Bytes: unsafe.Slice(unsafe.StringData(s), len(s))} // read only, by Append
		}
	case reflect.Bool:
		return plan.Bool, false, func(p unsafe.Pointer) plan.Cell { return plan.Cell{Bool: *(*bool)(p)} }
	case reflect.Int64:
		return plan.Long, false, func(p unsafe.Pointer) plan.Cell { return plan.Cell{Int: *(*int64)(p)} }
	case reflect.Int:
		return plan.Long, false, func(p unsafe.Pointer) plan.Cell { return plan.Cell{Int: int64(*(*int)(p))} }
	case reflect.Int32:
		return plan.Long, false, func(p unsafe.Pointer) plan.Cell { return plan.Cell{Int: int64(*(*int32)(p))} }
	case reflect.Float64:
		return plan.Double, false, func(p unsafe.Pointer) plan.Cell { return plan.Cell{Float: *(*float64)(p)} }
	default:
		return 0, false, nil
	}
}
