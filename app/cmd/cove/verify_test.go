//go:build unix

package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/internal/testregistry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/payload"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// Alice signs what she pushes to a private registry. Her colleague, who has her public key and a credential
// helper, verifies it with the programs that people have; no engine runs.
func TestVerifyAsPeopleDo(t *testing.T) {
	const password = "wonder-c4nary-land"
	r := testregistry.Start(t, testregistry.Options{Token: map[string]string{"alice": password}})
	home, err := os.MkdirTemp("", "cv") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(home, "bin")
	build := exec.Command("go", "build", "-o", bin+"/", "github.com/covedesk/cove/app/cmd/cove", "github.com/covedesk/cove/app/cmd/coved")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	docker := filepath.Join(home, "docker")
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file("docker/config.json", fmt.Sprintf(`{"credHelpers": {%q: "alice"}}`, r.Addr), 0o600)
	helper := func(secret string) {
		file("helpers/docker-credential-alice", fmt.Sprintf("#!/bin/sh\ncat >/dev/null\nprintf '{\"ServerURL\":\"%s\",\"Username\":\"alice\",\"Secret\":\"%s\"}'\n", r.Addr, secret), 0o700)
	}
	helper(password)
	env := append(os.Environ(), "COVE_HOME="+filepath.Join(home, "h"), "HOME="+home, "DOCKER_CONFIG="+docker, "PATH="+filepath.Join(home, "helpers")+":"+os.Getenv("PATH"), "http_proxy=", "HTTP_PROXY=")
	cove := func(args ...string) (string, int) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "cove"), args...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatalf("cove %s: %v", strings.Join(args, " "), err)
		}
		if strings.Contains(string(out), password) {
			t.Errorf("cove %s shows the password", strings.Join(args, " "))
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	t.Cleanup(func() {
		quit := exec.Command(filepath.Join(bin, "cove"), "quit")
		quit.Env = env
		if out, err := quit.CombinedOutput(); err != nil {
			t.Errorf("cove quit: %v\n%s", err, out)
		}
		os.RemoveAll(home)
	})

	name := r.Addr + "/team/app"
	repo, err := remote.NewRepository(name)
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	repo.Client = &auth.Client{Client: http.DefaultClient, Cache: auth.NewCache(), Credential: auth.StaticCredential(r.Addr, auth.Credential{Username: "alice", Password: password})}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signature.LoadSigner(private, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	public, err := cryptoutils.MarshalPublicKeyToPEM(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	push := func(media string, content []byte) ocispec.Descriptor {
		t.Helper()
		d := ocispec.Descriptor{MediaType: media, Digest: digest.FromBytes(content), Size: int64(len(content))}
		if err := repo.Push(t.Context(), d, bytes.NewReader(content)); err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
			t.Fatal(err)
		}
		return d
	}
	manifest := func(tag string, layers ...ocispec.Descriptor) ocispec.Descriptor {
		t.Helper()
		text, err := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: push(ocispec.MediaTypeImageConfig, []byte("{}")), Layers: layers})
		if err != nil {
			t.Fatal(err)
		}
		d := push(ocispec.MediaTypeImageManifest, text)
		if err := repo.Tag(t.Context(), d, tag); err != nil {
			t.Fatal(err)
		}
		return d
	}
	image := manifest("1", push(ocispec.MediaTypeImageLayer, []byte("a")))
	says, err := json.Marshal(payload.SimpleContainerImage{Critical: payload.Critical{Identity: payload.Identity{DockerReference: name}, Image: payload.Image{DockerManifestDigest: image.Digest.String()}, Type: payload.CosignSignatureType}})
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signer.SignMessage(bytes.NewReader(says))
	if err != nil {
		t.Fatal(err)
	}
	l := push("application/vnd.dev.cosign.simplesigning.v1+json", says)
	l.Annotations = map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig)}
	manifest("sha256-"+image.Digest.Encoded()+".sig", l)

	step := func(status int, want string, args ...string) string {
		t.Helper()
		out, got := cove(args...)
		if got != status || !strings.Contains(out, want) {
			t.Errorf("cove %s = %d\n%s\nwant %d and %q", strings.Join(args, " "), got, out, status, want)
		}
		return out
	}
	step(1, "The settings have no key for "+name, "image", "verify", name+":1")
	step(1, "holds no key", "image", "trust", "add", r.Addr+"/team/*", "--key", file("text", "no key", 0o600))
	step(0, "is trusted for "+r.Addr+"/team/*", "image", "trust", "add", r.Addr+"/team/*", "--key", file("cosign.pub", string(public), 0o600), "--until", "2100-01-01")
	step(0, "2100-01-01", "image", "trust", "list")
	step(0, image.Digest.String(), "image", "verify", name+":1")
	var v api.Verification
	if err := json.Unmarshal([]byte(step(0, "", "image", "verify", name+":1", "--json")), &v); err != nil || !v.Verified || v.Digest != image.Digest.String() || v.Signature == nil || v.Signature.Name != name {
		t.Errorf("verify --json = %+v, %v; want the image verified", v, err)
	}

	manifest("1", push(ocispec.MediaTypeImageLayer, []byte("b")))
	step(1, "points to another digest than the signature", "image", "verify", name+":1")
	step(0, "is signed", "image", "verify", name+"@"+image.Digest.String())
	if err := json.Unmarshal([]byte(step(1, "", "image", "verify", name+":1", "--json")), &v); err != nil || v.Verified || v.Reason != api.VerifyMoved {
		t.Errorf("verify --json = %+v, %v; want %s", v, err, api.VerifyMoved)
	}
	helper("another")
	step(1, "does not let you read", "image", "verify", name+":1")
	step(0, "is removed", "image", "trust", "remove", r.Addr+"/team/*")
	step(0, "There are no keys", "image", "trust", "list")
	step(2, "./image.tar", "image", "verify", "image.tar", "--name", "a")
	step(1, "does not exist", "image", "verify", "./image.tar")
	step(0, "verify", "image", "--help")
	if log, err := os.ReadFile(filepath.Join(home, "h", "log", "coved.log")); err != nil || bytes.Contains(log, []byte(password)) {
		t.Errorf("coved's log has the password, or cannot be read: %v", err)
	}
}
