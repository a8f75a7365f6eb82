package testregistry

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var users = map[string]string{"alice": "wonder:land"}

// trusting is a client that trusts the registry's CA, with the registry's client certificate or none.
func trusting(t *testing.T, r *Registry, withCert bool) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.CA.PEM)
	config := &tls.Config{RootCAs: pool}
	if withCert {
		cert, key, err := r.CA.Client()
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	tr := &http.Transport{TLSClientConfig: config}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// ask makes a request with a credential, as "Basic alice:pw" or "Bearer x", and gives status and body.
func ask(t *testing.T, c *http.Client, method, url, credential string, body []byte) (*http.Response, []byte, error) {
	t.Helper()
	q, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if kind, value, _ := strings.Cut(credential, " "); kind == "Basic" {
		user, password, _ := strings.Cut(value, ":")
		q.SetBasicAuth(user, password)
	} else if credential != "" {
		q.Header.Set("Authorization", credential)
	}
	a, err := c.Do(q)
	if err != nil {
		return nil, nil, err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	return a, b, err
}

// answered is the status of a request that must be answered.
func answered(t *testing.T, c *http.Client, url, credential string) int {
	t.Helper()
	a, _, err := ask(t, c, "GET", url, credential, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode
}

// push puts a blob and gives its URL.
func push(t *testing.T, c *http.Client, r *Registry, credential string, blob []byte) string {
	t.Helper()
	a, b, err := ask(t, c, "POST", r.URL+"/v2/app/blobs/uploads/", credential, nil)
	if err != nil || a.StatusCode != http.StatusAccepted {
		t.Fatalf("an upload begins with %v, %v: %s", a, err, b)
	}
	to, err := a.Request.URL.Parse(a.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(blob))
	q := to.Query()
	q.Set("digest", digest)
	to.RawQuery = q.Encode()
	if a, b, err = ask(t, c, "PUT", to.String(), credential, blob); err != nil || a.StatusCode != http.StatusCreated {
		t.Fatalf("an upload ends with %v, %v: %s", a, err, b)
	}
	return r.URL + "/v2/app/blobs/" + digest
}

func TestWhoIsLetIn(t *testing.T) {
	r := Start(t, Options{TLS: true, Htpasswd: users})
	if _, _, err := ask(t, http.DefaultClient, "GET", r.URL+"/v2/", "", nil); err == nil {
		t.Error("a client that was not told trusts the test's CA")
	}
	c := trusting(t, r, false)
	for _, row := range []struct {
		credential string
		want       int
	}{
		{"", 401}, {"Basic alice:wonder:land", 200}, {"Basic alice:wrong", 401}, {"Basic bob:wonder:land", 401}, {"Bearer x", 401},
	} {
		if got := answered(t, c, r.URL+"/v2/", row.credential); got != row.want {
			t.Errorf("with %q the registry answers %d; want %d", row.credential, got, row.want)
		}
	}
	if got := answered(t, c, "https://localhost:"+r.Port+"/v2/", ""); got != 401 {
		t.Errorf("by the name localhost the registry answers %d; want 401", got)
	}
	got := r.Requests()[1]
	if got.Credential != "Basic" || got.User != "alice" || got.Path != "/v2/" || got.Status != 200 || got.Host != r.Addr || !slices.Contains(got.Headers, "Authorization") {
		t.Errorf("recorded is %+v", got)
	}
	if bare := r.Requests()[0]; bare.Credential != "" || slices.Contains(bare.Headers, "Authorization") {
		t.Errorf("recorded is %+v of a request without a credential", bare)
	}
}

func TestClientCertificate(t *testing.T) {
	r := Start(t, Options{TLS: true, ClientCert: true})
	if a, _, err := ask(t, trusting(t, r, false), "GET", r.URL+"/v2/", "", nil); err == nil {
		t.Errorf("a client without a certificate is answered %s", a.Status)
	}
	if got := answered(t, trusting(t, r, true), r.URL+"/v2/", ""); got != 200 {
		t.Errorf("a client with a certificate is answered %d; want 200", got)
	}
}

// token follows a registry's challenge with a password.
func token(t *testing.T, c *http.Client, r *Registry, credential, more string) (given struct {
	Token   string `json:"token"`
	Refresh string `json:"refresh_token"`
}, status int) {
	t.Helper()
	a, _, err := ask(t, c, "GET", r.URL+"/v2/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`^Bearer realm="([^"]*)",service="([^"]*)"`).FindStringSubmatch(a.Header.Get("WWW-Authenticate"))
	if m == nil {
		t.Fatalf("the challenge is %q", a.Header.Get("WWW-Authenticate"))
	}
	a, b, err := ask(t, c, "GET", m[1]+"?service="+url.QueryEscape(m[2])+"&scope=repository:app:pull,push"+more, credential, nil)
	if err != nil {
		t.Fatal(err)
	}
	json.Unmarshal(b, &given)
	return given, a.StatusCode
}

func TestTokens(t *testing.T) {
	r := Start(t, Options{TLS: true, Token: users, IdentityTokens: true})
	c := trusting(t, r, false)
	if _, got := token(t, c, r, "Basic alice:wrong", ""); got != 401 {
		t.Errorf("with a wrong password the token server answers %d; want 401", got)
	}
	good, _ := token(t, c, r, "Basic alice:wonder:land", "&offline_token=true")
	if got := answered(t, c, r.URL+"/v2/", "Bearer "+good.Token); got != 200 {
		t.Errorf("with a token the registry answers %d; want 200", got)
	}
	push(t, c, r, "Bearer "+good.Token, []byte("a layer"))
	r.ExpireTokens(1)
	old, _ := token(t, c, r, "Basic alice:wonder:land", "")
	a, _, err := ask(t, c, "GET", r.URL+"/v2/", "Bearer "+old.Token, nil)
	if err != nil {
		t.Fatal(err)
	}
	if challenge := a.Header.Get("WWW-Authenticate"); a.StatusCode != 401 || !strings.Contains(challenge, `error="invalid_token"`) {
		t.Errorf("with a token that has ended the registry answers %d, %s; want 401 with invalid_token", a.StatusCode, challenge)
	}
	r.EndTokens("/blobs/")
	for _, row := range []struct {
		path string
		want int
	}{{"/v2/", 200}, {"/v2/app/blobs/sha256:" + strings.Repeat("0", 64), 401}, {"/v2/", 401}} {
		if got := answered(t, c, r.URL+row.path, "Bearer "+good.Token); got != row.want {
			t.Errorf("with a token that ends at the first blob %s is answered %d; want %d", row.path, got, row.want)
		}
	}
	next, _ := token(t, c, r, "Basic alice:wonder:land", "")
	if got := answered(t, c, r.URL+"/v2/", "Bearer "+next.Token); got != 200 {
		t.Errorf("with the next token the registry answers %d; want 200", got)
	}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {good.Refresh}, "service": {service}}
	b, err := c.PostForm(r.TokenURL().String(), form)
	if err != nil {
		t.Fatal(err)
	}
	b.Body.Close()
	if good.Refresh == "" || b.StatusCode != 200 || !slices.Contains(r.Tokens(), good.Refresh) || !slices.Contains(r.Tokens(), good.Token) {
		t.Errorf("an identity token %q is answered %s, and is among those given: %v", good.Refresh, b.Status, r.Tokens())
	}
}

func TestBlobsFromElsewhere(t *testing.T) {
	r := Start(t, Options{Htpasswd: users, RedirectBlobs: "localhost"})
	const login = "Basic alice:wonder:land"
	blob := bytes.Repeat([]byte("layer "), 1000)
	at := push(t, http.DefaultClient, r, login, blob)
	if got := answered(t, http.DefaultClient, at, ""); got != 401 {
		t.Errorf("who is not logged in is answered %d; want 401", got)
	}
	r.Forget()
	a, b, err := ask(t, http.DefaultClient, "GET", at, login, nil)
	if err != nil || !bytes.Equal(b, blob) {
		t.Fatalf("the blob is %d bytes, %v; want %d", len(b), err, len(blob))
	}
	signature := a.Request.URL.Query().Get("signature")
	if !slices.Contains(r.Signatures(), signature) {
		t.Errorf("the blob came from %s, whose signature is not known", a.Request.URL)
	}
	got := r.Requests()
	if len(got) != 2 || got[0].Server != "registry" || got[0].Credential != "Basic" || got[1].Server != "blobs" || got[1].Credential != "" || got[1].Status != 200 {
		t.Errorf("the requests are %+v; want the registry's with a credential, then the other server's without", got)
	}
	forged := *a.Request.URL
	forged.RawQuery = "signature=x"
	if got := answered(t, http.DefaultClient, forged.String(), ""); got != 403 {
		t.Errorf("a URL that nobody signed is answered %d; want 403", got)
	}
	r.AskElsewhere(true)
	if a, _, err := ask(t, http.DefaultClient, "GET", at, login, nil); err != nil || a.StatusCode != 401 || a.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("a server that wants a password answers %v, %v", a, err)
	}
	r.AskElsewhere(false)
	// The record tells of a credential that does come.
	forged.RawQuery = a.Request.URL.RawQuery
	answered(t, http.DefaultClient, forged.String(), login)
	if last := r.Requests(); last[len(last)-1].User != "alice" {
		t.Errorf("a credential at the other server is recorded as %+v", last[len(last)-1])
	}
}

func TestFaults(t *testing.T) {
	for _, elsewhere := range []string{"", "localhost"} {
		r := Start(t, Options{RedirectBlobs: elsewhere})
		blob := bytes.Repeat([]byte("layer "), 10_000)
		at := push(t, http.DefaultClient, r, "", blob)
		small := push(t, http.DefaultClient, r, "", []byte("small"))
		r.Cut(1000, 1)
		if got := answered(t, http.DefaultClient, small, ""); got != 200 {
			t.Errorf("a small blob is answered %d", got)
		}
		if _, b, err := ask(t, http.DefaultClient, "GET", at, "", nil); err == nil || len(b) != 1000 {
			t.Errorf("a cut blob is %d bytes, %v; want 1000 and an error", len(b), err)
		}
		q, _ := http.NewRequest("GET", at, nil)
		q.Header.Set("Range", "bytes=1000-")
		a, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(a.Body)
		a.Body.Close()
		if a.StatusCode != http.StatusPartialContent || err != nil || !bytes.Equal(rest, blob[1000:]) {
			t.Errorf("the rest is %s, %d bytes, %v; want %d", a.Status, len(rest), err, len(blob)-1000)
		}
		r.Cut(1000, Always)
		for range 3 {
			if _, _, err := ask(t, http.DefaultClient, "GET", at, "", nil); err == nil {
				t.Error("a blob that is always cut came whole")
			}
		}
		if a, err := http.DefaultClient.Do(q); err == nil {
			if b, err := io.ReadAll(a.Body); err == nil || len(b) > 0 {
				t.Errorf("from where it is cut come %d bytes, %v; want none", len(b), err)
			}
			a.Body.Close()
		}
		r.Cut(0, 0)
		r.Slow(100_000)
		start := time.Now()
		if _, b, err := ask(t, http.DefaultClient, "GET", at, "", nil); err != nil || !bytes.Equal(b, blob) {
			t.Errorf("a slow blob is %d bytes, %v; want %d", len(b), err, len(blob))
		}
		if took := time.Since(start); took < 500*time.Millisecond {
			t.Errorf("60,000 bytes at 100,000 a second took %v", took)
		}
	}
}
