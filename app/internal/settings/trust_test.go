package settings

import (
	"encoding/json"
	"strings"
	"testing"
)

// publicKey is one that cosign could have made.
const publicKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhyQCx0E9wQWSFI9ULGwy3BuRklnt
IqozONbbdbqz11hlRJy9c7SG+hdcFl9jE9uE/dwtuwU2MqU9T/cN0YkWww==
-----END PUBLIC KEY-----`

func TestTrustKeys(t *testing.T) {
	path := file(t, "")
	s := open(t, path, laptop)
	value, err := json.Marshal([]map[string]string{{"for": "registry.example.com/*", "key": publicKey, "until": "2027-01-31"}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Set("trust.keys", string(value))
	if err != nil || c.Restart || !strings.Contains(c.Value, "2027-01-31") {
		t.Fatalf("Set = %+v, %v; want the value as it was given, and no restart", c, err)
	}
	again := open(t, path, laptop)
	if got := again.Values().Trust; len(got) != 1 || got[0].Key != publicKey || got[0].For != "registry.example.com/*" {
		t.Errorf("the file gives %+v back", got)
	}
	if v, err := again.Get("trust.keys"); err != nil || v.Value != c.Value || !v.Set {
		t.Errorf("Get = %+v, %v; want %s", v, err, c.Value)
	}
	if c, err = again.Unset("trust.keys"); err != nil || c.Value != "[]" {
		t.Errorf("Unset = %+v, %v; want []", c, err)
	}
	if _, err := s.Set("trust.keys", `[{"for": "*", "key": "`+path+`/gone"}]`); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("Set of a file that is not there = %v; want a refusal that names it", err)
	}
	// Written by hand, that file keeps nothing from starting.
	if _, err := Open(file(t, `{"trust.keys": [{"for": "*", "key": "/gone"}]}`), laptop); err != nil {
		t.Errorf("Open with a file that is not there = %v; want none", err)
	}
	if _, err := Open(file(t, `{"trust.keys": [{"for": "*"}]}`), laptop); err == nil {
		t.Error("Open without a key = nil; want a refusal")
	}
}

// Somebody gives the wrong file of the two that `cosign generate-key-pair` makes.
func TestAPrivateKeyIsNotShown(t *testing.T) {
	s := open(t, file(t, ""), laptop)
	for _, kind := range []string{"PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED SIGSTORE PRIVATE KEY"} {
		for _, end := range []string{"\n-----END " + kind + "-----", ""} {
			value, err := json.Marshal([]map[string]string{{"for": "*", "key": "-----BEGIN " + kind + "-----\n" + canary + end}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Set("trust.keys", string(value)); err == nil || strings.Contains(err.Error(), canary) || !strings.Contains(err.Error(), "[secret]") {
				t.Errorf("Set = %v; want a refusal without the key", err)
			}
			if _, err := Open(file(t, `{"trust.keys": `+string(value)+`}`), laptop); err == nil || strings.Contains(err.Error(), canary) {
				t.Errorf("Open = %v; want a refusal without the key", err)
			}
		}
	}
}
