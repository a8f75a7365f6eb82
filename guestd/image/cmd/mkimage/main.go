// Command mkimage makes the guest image and the programs that ship beside it. It needs no root, says
// what it does while it does it, and keeps what it built by the hash of what it was built from, so
// that a second run takes seconds. See guestd/image/README.md for the recipe.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// options are the command's words.
type options struct {
	root    string // the work tree
	cache   string // where built things are kept
	bin     string // where finished things go
	arch    string // GOARCH of the guest
	release bool   // fail if anything but the locked packages would be used
	force   bool   // make the image again although it is there
	guestd  string // the folder of guestd's main package
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var o options
	f := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	f.StringVar(&o.root, "root", ".", "the work tree")
	f.StringVar(&o.cache, "cache", defaultCache(), "where built things are kept")
	f.StringVar(&o.bin, "bin", "bin", "where finished things go")
	f.StringVar(&o.arch, "arch", runtime.GOARCH, "architecture of the guest")
	f.BoolVar(&o.release, "release", false, "fail if the archive does not give exactly what is locked")
	f.BoolVar(&o.force, "force", false, "make the image again although it is there")
	f.StringVar(&o.guestd, "guestd", "./guestd/cmd/guestd", "folder of the program that is the guest's init, below the work tree or absolute")
	f.Usage = func() {
		fmt.Fprintln(f.Output(), "usage: mkimage [flags] image | lock | repro | tools")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	var err error
	if o.root, err = filepath.Abs(o.root); err != nil {
		return err
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if err := os.MkdirAll(o.cache, 0o755); err != nil {
		return err
	}
	unlock, err := lockCache(ctx, o.cache)
	if err != nil {
		return err
	}
	defer unlock()
	switch f.Arg(0) {
	case "image":
		return makeImage(ctx, o)
	case "lock":
		return writeLock(ctx, o)
	case "repro":
		return reproduce(ctx, o)
	case "tools":
		return makeTools(ctx, o)
	}
	f.Usage()
	return fmt.Errorf("%q is not a thing to make", f.Arg(0))
}

func defaultCache() string {
	if dir := os.Getenv("COVE_BUILD_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "cove-build")
}

// stage says what is done now and, by the function returned, how long it took.
func stage(format string, args ...any) func() {
	what := fmt.Sprintf(format, args...)
	start := time.Now()
	fmt.Printf("==> %s\n", what)
	return func() { fmt.Printf("    %s: %.1f s\n", what, time.Since(start).Seconds()) }
}
