package check

import (
	"fmt"
	"sync"
)

const examplesOfAKind = 3

// Report counts what went wrong, and explains the first few of each kind.
type Report struct {
	mutex     sync.Mutex
	Counts    map[string]int64
	Examples  []string
	Tolerated map[string]int64 // what etcd itself does wrong
}

// NewReport makes one in which nothing went wrong.
func NewReport() *Report {
	return &Report{Counts: map[string]int64{}, Examples: []string{}, Tolerated: map[string]int64{}}
}

// Tolerate counts what is wrong and no violation.
func (report *Report) Tolerate(kind string) {
	report.mutex.Lock()
	defer report.mutex.Unlock()
	report.Tolerated[kind]++
}

// Fail counts a violation. It tells whether it is to be explained.
func (report *Report) Fail(kind string) bool {
	report.mutex.Lock()
	defer report.mutex.Unlock()
	report.Counts[kind]++
	return report.Counts[kind] <= examplesOfAKind
}

// Explain says more of a violation that has been counted.
func (report *Report) Explain(kind, explanation string) {
	report.mutex.Lock()
	defer report.mutex.Unlock()
	report.Examples = append(report.Examples, kind+": "+explanation)
}

// Violation counts and explains.
func (report *Report) Violation(kind, format string, values ...interface{}) {
	if report.Fail(kind) {
		report.Explain(kind, fmt.Sprintf(format, values...))
	}
}

// Total is the number of violations.
func (report *Report) Total() (total int64) {
	report.mutex.Lock()
	defer report.mutex.Unlock()
	for _, count := range report.Counts {
		total += count
	}
	return total
}
