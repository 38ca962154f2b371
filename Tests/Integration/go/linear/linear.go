// Package linear decides whether what clients saw of a register could have happened one operation at a time, each at
// some moment between its call and its answer: the search of Wing and Gong, which remembers as Lowe does where it has
// already been.
package linear

import (
	"math"
	"sort"
	"strconv"
)

// Never is the time of the answer to an operation that was never answered: it may have happened at any time, or not.
const Never = int64(math.MaxInt64)

// Operation on one register. A read has the value that was found, "" for none; a write the one that was written.
type Operation struct {
	IsWrite      bool
	Value        string
	Call, Answer int64
}

// moment is the call or the answer of an operation, in a list from which operations are lifted out and put back.
type moment struct {
	operation      int // whose
	isAnswer       bool
	match          *moment // answer of a call
	previous, next *moment
}

// Check tells whether a history of one register, empty at first, is linearizable.
func Check(history []Operation) bool {
	operations := make([]Operation, 0, len(history))
	for _, one := range history {
		// A read without an answer says nothing.
		if one.IsWrite || one.Answer != Never {
			operations = append(operations, one)
		}
	}
	head := list(operations)
	done := make([]uint64, (len(operations)+63)/64)
	been := map[string]bool{}
	type step struct {
		call  *moment
		value string
	}
	var steps []step
	value, left := "", 0
	for _, one := range operations {
		if one.Answer != Never {
			left++
		}
	}
	for at := head.next; left > 0; {
		if at != nil && !at.isAnswer {
			one := &operations[at.operation]
			if one.IsWrite || one.Value == value {
				done[at.operation/64] ^= 1 << (at.operation % 64)
				after := value
				if one.IsWrite {
					after = one.Value
				}
				if where := place(done, after); !been[where] {
					been[where] = true
					steps = append(steps, step{at, value})
					value = after
					if one.Answer != Never {
						left--
					}
					lift(at)
					at = head.next
					continue
				}
				done[at.operation/64] ^= 1 << (at.operation % 64)
			}
			at = at.next
			continue
		}
		// An answer without its operation, or the end: the last step was wrong.
		if len(steps) == 0 {
			return false
		}
		last := steps[len(steps)-1]
		steps = steps[:len(steps)-1]
		value = last.value
		done[last.call.operation/64] ^= 1 << (last.call.operation % 64)
		if operations[last.call.operation].Answer != Never {
			left++
		}
		restore(last.call)
		at = last.call.next
	}
	return true
}

// list makes the moments of all operations in order, behind a head.
func list(operations []Operation) *moment {
	var all []*moment
	at := func(one *moment) int64 {
		if one.isAnswer {
			return operations[one.operation].Answer
		}
		return operations[one.operation].Call
	}
	for index, one := range operations {
		call := &moment{operation: index}
		all = append(all, call)
		if one.Answer != Never {
			call.match = &moment{operation: index, isAnswer: true}
			all = append(all, call.match)
		}
	}
	// What happens in the same moment overlaps: calls first.
	sort.SliceStable(all, func(one, other int) bool {
		if first, second := at(all[one]), at(all[other]); first != second {
			return first < second
		}
		return !all[one].isAnswer && all[other].isAnswer
	})
	head := &moment{operation: -1}
	last := head
	for _, one := range all {
		last.next, one.previous = one, last
		last = one
	}
	return head
}

func lift(call *moment) {
	unlink(call)
	if call.match != nil {
		unlink(call.match)
	}
}

// restore puts back what was lifted last.
func restore(call *moment) {
	if call.match != nil {
		link(call.match)
	}
	link(call)
}

func unlink(one *moment) {
	one.previous.next = one.next
	if one.next != nil {
		one.next.previous = one.previous
	}
}

func link(one *moment) {
	one.previous.next = one
	if one.next != nil {
		one.next.previous = one
	}
}

func place(done []uint64, value string) string {
	key := make([]byte, 0, len(done)*9+len(value))
	for _, word := range done {
		key = append(strconv.AppendUint(key, word, 36), ' ')
	}
	return string(append(key, value...))
}
