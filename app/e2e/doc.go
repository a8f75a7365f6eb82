// Package e2e uses Cove as a user does: through the programs in bin/, on a real VM, with the real
// engine. Its tests are built with the tag e2e and run by packaging/e2e.sh as an ordinary user; one VM
// is booted and shared by the tests of a lane, and the tests that break things come last. A boot takes long: tests of
// settings that hold from the next start on share their starts (atStart).
package e2e
