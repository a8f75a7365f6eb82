package settings

import (
	"encoding/json"
	"strings"
	"testing"
)

const canary = "c4nary-pass"

// A user looks at his settings over somebody's shoulder, or sends them with a bug report: no password of
// a proxy is in them.
func TestPasswordsAreNotShown(t *testing.T) {
	path := file(t, "")
	s := open(t, path, laptop)
	for name, value := range map[string]string{
		"proxy.http":     "http://user:" + canary + "@proxy:3128",
		"proxy.https":    "user:" + canary + "@proxy:3128",
		"engine.proxies": `{"https-proxy":"http://user:` + canary + `&@proxy:3128"}`,
		"engine.other":   `"http:\/\/user:` + canary + `@proxy"`,
	} {
		c, err := s.Set(name, value)
		if err != nil {
			t.Fatalf("Set(%s): %v", name, err)
		}
		one, err := s.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		for what, text := range map[string]string{"Set": c.Value, "Get": one.Value} {
			if strings.Contains(text, canary) || !strings.Contains(text, "xxxxx@proxy") {
				t.Errorf("%s of %s shows %s", what, name, text)
			}
		}
	}
	all, err := json.Marshal(s.List())
	if err != nil || strings.Contains(string(all), canary) {
		t.Errorf("the list shows %s, %v", all, err)
	}
	again := open(t, path, laptop).Values()
	if again.Proxy.HTTP.Password() != canary || again.Proxy.HTTPS.RevealURL() != "http://user:"+canary+"@proxy:3128" {
		t.Errorf("the file gives %q and %q; want what was set", again.Proxy.HTTP.RevealURL(), again.Proxy.HTTPS.RevealURL())
	}
}

func TestARefusalDoesNotShowThePassword(t *testing.T) {
	s := open(t, file(t, ""), laptop)
	for _, c := range [][2]string{
		{"proxy.http", "gopher://user:" + canary + "@proxy"},
		{"proxy.https", "http://user:" + canary + "/@proxy:1"},
		{"proxy.no-proxy", "http://user:" + canary + "@proxy"},
		{"memory", "http://user:" + canary + "@proxy"},
		{"engine.proxies", `{"http-proxy":"http://user:` + canary + `@proxy"`},
	} {
		if _, err := s.Set(c[0], c[1]); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("Set(%s, …) = %v; want a refusal without the password", c[0], err)
		}
	}
	for _, text := range []string{`{"proxy.htp": "http://user:` + canary + `@proxy"}`, `{"proxy.http": "x://user:` + canary + `@proxy"}`} {
		if _, err := Open(file(t, text), laptop); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("Open = %v; want a refusal without the password", err)
		}
	}
}

func TestAMaskedURLIsNotTakenForOne(t *testing.T) {
	s := open(t, file(t, ""), laptop)
	if _, err := s.Set("proxy.http", "http://user:xxxxx@proxy:3128"); err == nil || !strings.Contains(err.Error(), "stands for a password") {
		t.Errorf("Set of what the list shows = %v; want a refusal that says why", err)
	}
}

func TestNoProxyForm(t *testing.T) {
	path := file(t, "")
	s := open(t, path, laptop)
	for value, ok := range map[string]bool{
		"": true, "*": true, "localhost,.corp.example, *.x.example": true, "10.0.0.0/8,[::1]:80,fd00::/8": true, "bücher.example": true,
		"a\nb": false, "http://u@h": false, "{}": false,
	} {
		if _, err := s.Set("proxy.no-proxy", value); (err == nil) != ok {
			t.Errorf("Set(proxy.no-proxy, %q) = %v; want taken: %v", value, err, ok)
		}
		if got := open(t, path, laptop).Values().Proxy.No; ok && got != value {
			t.Errorf("the file gives %q back; want %q", got, value)
		}
	}
}
