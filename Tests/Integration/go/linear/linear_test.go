package linear

import (
	"fmt"
	"math/rand"
	"testing"
)

func write(value string, call, answer int64) Operation { return Operation{true, value, call, answer} }
func read(value string, call, answer int64) Operation  { return Operation{false, value, call, answer} }

func TestHistories(t *testing.T) {
	for _, one := range []struct {
		name    string
		history []Operation
		isGood  bool
	}{
		{"nothing", nil, true},
		{"in turn", []Operation{write("a", 1, 2), read("a", 3, 4), write("", 5, 6), read("", 7, 8)}, true},
		{"stale", []Operation{write("a", 1, 2), write("b", 3, 4), read("a", 5, 6)}, false},
		{"either of two", []Operation{write("a", 1, 4), write("b", 2, 3), read("a", 5, 6)}, true},
		{"not one and then the other", []Operation{
			write("a", 1, 4), write("b", 2, 3), read("a", 5, 6), read("b", 7, 8)}, false},
		{"while it is written", []Operation{write("a", 1, 10), read("", 2, 3), read("a", 4, 5)}, true},
		{"backwards", []Operation{write("a", 1, 10), read("a", 2, 3), read("", 4, 5)}, false},
		{"from the future", []Operation{read("a", 1, 2), write("a", 3, 4)}, false},
		{"never answered, happened", []Operation{write("a", 1, Never), read("", 2, 3), read("a", 5, 6)}, true},
		{"never answered, did not happen", []Operation{write("a", 1, Never), read("", 2, 3), read("", 5, 6)}, true},
		{"never answered, happened once", []Operation{
			write("a", 1, Never), read("a", 2, 3), write("b", 4, 5), read("b", 6, 7), read("a", 8, 9)}, false},
	} {
		if Check(one.history) != one.isGood {
			t.Errorf("%s: not %v", one.name, one.isGood)
		}
	}
}

// A register that is used one operation at a time is linearizable however the calls and answers lie around that.
func TestRandomHistories(t *testing.T) {
	for seed := int64(0); seed < 200; seed++ {
		random := rand.New(rand.NewSource(seed))
		var history []Operation
		value := ""
		for number := int64(0); number < 60; number++ {
			call, answer := number*10-random.Int63n(40), number*10+random.Int63n(40)
			if random.Intn(2) == 0 {
				value = fmt.Sprint(number)
				if random.Intn(8) == 0 {
					answer = Never
				}
				history = append(history, write(value, call, answer))
			} else {
				history = append(history, read(value, call, answer))
			}
		}
		if !Check(history) {
			t.Errorf("seed %d", seed)
		}
		// A value that nobody has written is never right.
		history = append(history, read("nobody's", 300, 310))
		if Check(history) {
			t.Errorf("seed %d with a wrong value", seed)
		}
	}
}
