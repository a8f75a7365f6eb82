// Command docker-credential-cove is the credential helper "cove" of docker and other clients: see
// docs/credentials.md, or run it without arguments.
package main

import (
	"os"

	"github.com/covedesk/cove/credhelper"
)

func main() { os.Exit(credhelper.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
