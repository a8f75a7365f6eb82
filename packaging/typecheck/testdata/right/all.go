// Package sample is checked by the test of typecheck.
package sample

// T has one method.
type T struct{}

func (T) Here() {}
