package record

import (
	"fmt"
	"strconv"
)

// PathError says which path could not be compiled, where in it, and why.
type PathError struct {
	Path   string
	Offset int // of the byte at fault, from 0
	Reason string
}

func (e *PathError) Error() string {
	return fmt.Sprintf("path %q at byte %d: %s", e.Path, e.Offset, e.Reason)
}

// Paths is a compiled set of paths. It does not change and may be used by several goroutines at once.
type Paths struct {
	root    node
	count   int
	longest int // of the steps' names
}

// node is one place that paths lead to or through: a trie over steps.
type node struct {
	names  []named
	filter uint64 // of the names' hashes, to refuse most others by one look
	at     []indexed
	id     *node   // the step id, which is also taken on a bare string
	ends   []int32 // the paths that end here
	below  []int32 // the paths that end here or further on: what a duplicate makes void
}

type named struct {
	head uint64 // the name's first eight bytes, zeros behind a shorter one
	name string
	bit  uint64 // one per step of a node, to notice duplicates; 0 beyond the 64th
	node *node
}

type indexed struct {
	index int
	node  *node
}

// Compile makes a matcher for the paths. The same path may come several times. The error is a *PathError.
func Compile(paths ...string) (*Paths, error) {
	p := &Paths{count: len(paths)}
	steps := map[*node]int{}
	for i, path := range paths {
		names, err := parsePath(path)
		if err != nil {
			return nil, err
		}
		n := &p.root
		n.below = append(n.below, int32(i))
		for _, name := range names {
			c := n.lookup(name)
			if c == nil {
				c = &node{}
				bit := uint64(1) << steps[n] // 0 from the 65th on
				steps[n]++
				n.add(name, bit, c)
			}
			n = c
			n.below = append(n.below, int32(i))
			p.longest = max(p.longest, len(name)+1) // + 1 for the @ of @type
		}
		n.ends = append(n.ends, int32(i))
	}
	return p, nil
}

// Len returns the number of paths compiled.
func (p *Paths) Len() int { return p.count }

func (n *node) lookup(name string) *node {
	for i := range n.names {
		if n.names[i].name == name {
			return n.names[i].node
		}
	}
	return nil
}

// add makes c the child under name, in both spellings where there are two.
func (n *node) add(name string, bit uint64, c *node) {
	spellings := []string{name}
	switch name {
	case "id":
		n.id = c
		spellings = append(spellings, "@id")
	case "type":
		spellings = append(spellings, "@type")
	}
	for _, s := range spellings {
		var head [8]byte
		copy(head[:], s)
		h := headOf(head[:], len(s))
		n.names = append(n.names, named{head: h, name: s, bit: bit, node: c})
		n.filter |= filterBit(h, len(s))
	}
	if i, err := strconv.Atoi(name); err == nil && strconv.Itoa(i) == name && i >= 0 {
		n.at = append(n.at, indexed{index: i, node: c})
	}
}

// parsePath splits a path into its steps' names, with id for @id and type for @type.
func parsePath(path string) ([]string, error) {
	var names []string
	fail := func(at int, reason string) ([]string, error) {
		return nil, &PathError{Path: path, Offset: at, Reason: reason}
	}
	if path == "" {
		return nil, nil
	}
	for i := 0; ; {
		var name string
		switch from := i; {
		case i < len(path) && path[i] == '"':
			end, _, f := skipString([]byte(path), i+1)
			if f == faultEnd {
				return fail(i, "the quoted step has no closing quote")
			}
			if f != noFault {
				return fail(end, syntaxError([]byte(path), end, f).Reason)
			}
			name = string(appendDecoded(nil, []byte(path[i+1:end-1])))
			i = end
			if i < len(path) && path[i] != '.' {
				return fail(i, "expected a dot after the quoted step")
			}
		default:
			for i < len(path) && path[i] != '.' {
				if c := path[i]; c <= ' ' || c == '"' || c == '[' || c == ']' {
					return fail(i, fmt.Sprintf("%q must be in a quoted step; an array index is a step of its own: a.0", c))
				}
				i++
			}
			if i == from {
				return fail(i, "empty step")
			}
			name = path[from:i]
		}
		switch name {
		case "@id":
			name = "id"
		case "@type":
			name = "type"
		}
		names = append(names, name)
		if i == len(path) {
			return names, nil
		}
		i++ // the dot
	}
}
