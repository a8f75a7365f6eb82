//go:build linux

// Command files works with files in a folder as people's tools do and prints how long each part took. The
// same program runs on the host, on the guest's own disk and on a shared folder, so that only the file
// system differs.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	largeFile   = 256 << 20
	blockSize   = 1 << 20
	smallFiles  = 10000
	smallSize   = 2 << 10
	perFolder   = 100
	repository  = 5000
	packages    = 400 // of an install tree: each a folder with a few files and a folder in it
	packageSize = 10
)

func main() {
	dir := os.Args[1]
	took := map[string]float64{}
	if err := run(dir, took); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(took)
}

func run(dir string, took map[string]float64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	timed := func(name string, f func() error) error {
		begun := time.Now()
		if err := f(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		took[name] = time.Since(begun).Seconds()
		return nil
	}
	large, small, repo, tree := filepath.Join(dir, "large"), filepath.Join(dir, "small"), filepath.Join(dir, "repo"), filepath.Join(dir, "node_modules")
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"write", func() error { return writeLarge(large) }},
		{"", forget},
		{"read", func() error { return readLarge(large) }},
		{"create", func() error { return create(small) }},
		{"", forget},
		{"list", func() error { return list(small, false) }},
		{"", forget},
		{"stat", func() error { return list(small, true) }},
		{"remove", func() error { return os.RemoveAll(small) }},
		{"", func() error { return commit(repo) }},
		{"", forget},
		{"git status, first", func() error { return git(repo, "status", "--porcelain") }},
		{"git status, again", func() error { return git(repo, "status", "--porcelain") }},
		{"install", func() error { return install(tree) }},
		{"", forget},
		{"load", func() error { return load(tree) }},
	} {
		var err error
		if step.name == "" {
			err = step.run()
		} else {
			err = timed(step.name, step.run)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// forget empties the kernel's caches of files, where we may.
func forget() error {
	exec.Command("sync").Run()
	os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
	return nil
}

func writeLarge(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, blockSize)
	for i := range block {
		block[i] = byte(i * 31)
	}
	for range largeFile / blockSize {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return f.Sync()
}

func readLarge(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, blockSize))
	return err
}

func create(dir string) error {
	text := make([]byte, smallSize)
	for i := range smallFiles {
		folder := filepath.Join(dir, fmt.Sprint(i/perFolder))
		if i%perFolder == 0 {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprint("f", i)), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// list walks the tree; stat asks for each file's state too, as make and most tools do.
func list(dir string, stat bool) error {
	return filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && stat {
			_, err = e.Info()
		}
		return err
	})
}

func git(dir string, args ...string) error {
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("git %s: %w: %s", args[0], err, out)
	}
	return nil
}

func commit(dir string) error {
	for i := range repository {
		folder := filepath.Join(dir, fmt.Sprint("d", i/50))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprint("f", i, ".go")), fmt.Appendln(nil, "package d // file", i), 0o644); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"commit", "-q", "-m", "all"}} {
		if err := git(dir, args...); err != nil {
			return err
		}
	}
	return nil
}

// install makes a tree as package managers do: each file beside its place, then moved there.
func install(dir string) error {
	text := make([]byte, smallSize)
	for p := range packages {
		staged, lib := filepath.Join(dir, fmt.Sprint(".p", p)), filepath.Join(dir, fmt.Sprint(".p", p), "lib")
		if err := os.MkdirAll(lib, 0o755); err != nil {
			return err
		}
		for i := range packageSize {
			path := filepath.Join(lib, fmt.Sprint(i, ".js"))
			if err := os.WriteFile(path, text, 0o644); err != nil {
				return err
			}
			if err := os.Chmod(path, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(staged, "package.json"), text, 0o644); err != nil {
			return err
		}
		if err := os.Symlink("lib/0.js", filepath.Join(staged, "bin")); err != nil {
			return err
		}
		if err := os.Rename(staged, filepath.Join(dir, fmt.Sprint("p", p))); err != nil {
			return err
		}
	}
	return nil
}

// load reads every file of a tree once.
func load(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		_, err = os.ReadFile(path)
		return err
	})
}
