package desktop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// GPG makes a GNUPGHOME of the test's own with one key, and a password store for it. Nobody is there to
// type a passphrase.
func GPG(t *testing.T, passphrase string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "cove-gpg-") // the agent's socket is in it, whose path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GNUPGHOME", dir)
	t.Setenv("HOME", t.TempDir())
	t.Setenv("PASSWORD_STORE_DIR", filepath.Join(t.TempDir(), "store"))
	t.Cleanup(func() {
		ForgetPassphrases(t)
		os.RemoveAll(dir)
	})
	// Without a count the agent measures the machine first, for seconds when it is busy.
	if err := os.WriteFile(filepath.Join(dir, "gpg-agent.conf"), []byte("pinentry-program /bin/false\ns2k-count 65536\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(in string, args ...string) string {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v (make deps installs what is missing)\n%s", args, err, out)
		}
		return string(out)
	}
	run(passphrase, "gpg", "--batch", "--quiet", "--pinentry-mode=loopback", "--passphrase-fd=0", "--quick-gen-key", "cove test <t@example.invalid>", "future-default", "default", "never")
	// By its fingerprint: gpg looks for an address on the network when it does not have the key.
	keys := run("", "gpg", "--batch", "--with-colons", "--list-keys")
	_, fpr, _ := strings.Cut(keys, "\nfpr:")
	fpr, _, _ = strings.Cut(strings.TrimLeft(fpr, ":"), ":")
	run("", "pass", "init", fpr)
	ForgetPassphrases(t)
}

// ForgetPassphrases ends the agent, and with it what it remembers of passphrases.
func ForgetPassphrases(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("gpgconf", "--kill", "all").CombinedOutput(); err != nil {
		t.Errorf("gpgconf --kill all: %v\n%s", err, out)
	}
}
