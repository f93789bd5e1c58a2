package record

import (
	"encoding/binary"
	"fmt"
	"math/bits"
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
	root  node
	count int
}

// node is one place that paths lead to or through: a trie over steps.
type node struct {
	table []step // the steps to go on with, by the hash of their names; nil when there are none
	shift uint8  // of a hash, to an index of table
	at    []indexed
	id    *node   // the step id, which is also taken on a bare string
	ends  []int32 // the paths that end here
	below []int32 // the paths that end here or further on: what a duplicate makes void
	plain int32   // the only path that ends here, when nothing goes on; else -1

	longest int // of the steps' names, in bytes

	children []child // while compiling
}

// step is an entry of a node's table. A name has an entry for each of its spellings.
type step struct {
	key  key
	name string
	long bool   // the key does not have all of the name
	bit  uint64 // one per child of a node, to notice duplicates; 0 beyond the 64th
	node *node  // nil in a free entry
}

// key is what a name is looked up by: two words that are the whole of a name of less than 16 bytes.
type key struct{ head, tail uint64 }

type child struct {
	name string
	node *node
}

type indexed struct {
	index int
	node  *node
}

// Compile makes a matcher for the paths. The same path may come several times. The error is a *PathError.
func Compile(paths ...string) (*Paths, error) {
	p := &Paths{count: len(paths)}
	for i, path := range paths {
		names, err := parsePath(path)
		if err != nil {
			return nil, err
		}
		n := &p.root
		n.below = append(n.below, int32(i))
		for _, name := range names {
			n = n.child(name)
			n.below = append(n.below, int32(i))
		}
		n.ends = append(n.ends, int32(i))
	}
	p.root.finish()
	return p, nil
}

// Len returns the number of paths compiled.
func (p *Paths) Len() int { return p.count }

// child returns the node that name leads to, a new one if need be.
func (n *node) child(name string) *node {
	for _, c := range n.children {
		if c.name == name {
			return c.node
		}
	}
	c := child{name: name, node: &node{}}
	n.children = append(n.children, c)
	return c.node
}

// finish builds what a scan uses from the children of n and of the nodes below it.
func (n *node) finish() {
	n.plain = -1
	if len(n.children) == 0 {
		if len(n.ends) == 1 {
			n.plain = n.ends[0]
		}
		return
	}
	// At most a quarter of the table is used: most names that are not in it meet a free entry at once.
	size := bits.Len(uint(len(n.children)*2*4 - 1))
	n.table = make([]step, 1<<size)
	n.shift = uint8(64 - size)
	for i, c := range n.children {
		bit := uint64(1) << i // 0 from the 65th on
		n.enter(c.name, bit, c.node)
		switch c.name {
		case "id":
			n.id = c.node
			n.enter("@id", bit, c.node)
		case "type":
			n.enter("@type", bit, c.node)
		}
		if k, err := strconv.Atoi(c.name); err == nil && k >= 0 && strconv.Itoa(k) == c.name {
			n.at = append(n.at, indexed{index: k, node: c.node})
		}
		c.node.finish()
	}
	n.children = nil
}

func (n *node) enter(name string, bit uint64, c *node) {
	n.longest = max(n.longest, len(name))
	k := keyOf([]byte(name))
	i := k.hash() >> n.shift
	for n.table[i].node != nil {
		i = (i + 1) % uint64(len(n.table))
	}
	n.table[i] = step{key: k, name: name, long: isLong(len(name)), bit: bit, node: c}
}

// find returns the step whose name has the key k, or nil. long is the name if it is not a short one.
func (n *node) find(k key, long []byte) *step {
	mask := uint64(len(n.table) - 1)
	for i := k.hash() >> (n.shift & 63); ; i++ {
		s := &n.table[i&mask]
		if s.node == nil {
			return nil
		}
		if s.key == k && s.long == (long != nil) && (!s.long || s.name == string(long)) {
			return s
		}
	}
}

// findName is find for any name.
func (n *node) findName(name []byte) *step {
	if isLong(len(name)) {
		return n.find(keyOf(name), name)
	}
	return n.find(keyOf(name), nil)
}

// element returns the node that leads on from the k-th element of an array, or nil.
func (n *node) element(k int) *node {
	for _, x := range n.at {
		if x.index == k {
			return x.node
		}
	}
	return nil
}

// keyOf makes the key of a name: of a short one its lastWords, of a long one the first and the last eight bytes.
func keyOf(name []byte) key {
	if isLong(len(name)) {
		return key{binary.LittleEndian.Uint64(name), binary.LittleEndian.Uint64(name[len(name)-8:])}
	}
	head, tail := lastWords(name)
	return key{head, tail}
}

func isLong(size int) bool { return size >= 16 }

func (k key) hash() uint64 { return (k.head ^ k.tail) * 0x9e3779b97f4a7c15 }

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
