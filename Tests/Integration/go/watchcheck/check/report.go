package check

import "sync"

const examplesOfAKind = 3

// Report counts what went wrong, and explains the first few of each kind.
type Report struct {
	mutex    sync.Mutex
	Counts   map[string]int64
	Examples []string
}

// NewReport makes one in which nothing went wrong.
func NewReport() *Report { return &Report{Counts: map[string]int64{}, Examples: []string{}} }

// Fail counts a violation.
func (report *Report) Fail(kind, explanation string) {
	report.mutex.Lock()
	defer report.mutex.Unlock()
	report.Counts[kind]++
	if report.Counts[kind] <= examplesOfAKind {
		report.Examples = append(report.Examples, kind+": "+explanation)
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
