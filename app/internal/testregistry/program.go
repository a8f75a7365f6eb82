package testregistry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// order is what the program in distribution/ is told.
type order struct {
	Folder string
	Users  map[string]string
	Token  map[string]any
}

// program is the path of the program in distribution/: what COVE_TEST_REGISTRY names, where tests run
// without a Go toolchain, else what the toolchain builds, or has in its cache.
var program = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("COVE_TEST_REGISTRY"); path != "" {
		return path, nil
	}
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	cmd := exec.Command("go", "tool", "-n", "distribution")
	cmd.Dir = filepath.Join(filepath.Dir(strings.TrimSpace(string(mod))), "app/internal/testregistry/distribution")
	path, err := cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		err = fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("build the registry: %w", err)
	}
	return strings.TrimSpace(string(path)), nil
})

// run starts the program and waits for its socket.
func run(t testing.TB, o order) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var says bytes.Buffer
	cmd.Stdout, cmd.Stderr = &says, &says
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		in.Close()
		<-ended
		if t.Failed() && says.Len() > 0 {
			t.Logf("the registry said:\n%s", says.String())
		}
	})
	if _, err := io.WriteString(in, string(text)); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", filepath.Join(o.Folder, "socket")); err == nil {
			c.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the registry ended: %v\n%s", err, says.String())
		default:
		}
		if time.Now().After(end) {
			t.Fatal("the registry does not serve")
		}
	}
}
