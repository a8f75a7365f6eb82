package testregistry

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// What registry and token server agree on.
const (
	issuer  = "a test's token server"
	service = "a test's registry"
)

// tokenLife is how long tokens last. The registry gives a minute more for clocks that differ.
const tokenLife = 5 * time.Minute

// tokenServer gives tokens to who has a password:
// https://distribution.github.io/distribution/spec/auth/token/ and .../oauth/
type tokenServer struct {
	registry *Registry
	port     string

	mu       sync.Mutex
	expired  int    // so many of the next tokens have ended before they are given
	endAt    string // part of a path: who asks for one ends the tokens that were given until then
	ended    map[string]bool
	identity map[string]string // user by identity token
	given    []string
}

func newTokenServer(r *Registry) *tokenServer {
	return &tokenServer{registry: r, ended: map[string]bool{}, identity: map[string]string{}}
}

// trust gives the registry's options for this server's tokens.
func (s *tokenServer) trust(folder, realm string) (map[string]any, error) {
	bundle := filepath.Join(folder, "ca.pem")
	return map[string]any{"realm": realm, "issuer": issuer, "service": service, "rootcertbundle": bundle},
		os.WriteFile(bundle, s.registry.CA.PEM, 0o600)
}

// sayWhere names, in the registry's challenge, the token server by the name that the client has for this host.
func (s *tokenServer) sayWhere(a *http.Response) error {
	challenge := a.Header.Get("WWW-Authenticate")
	if host, _, err := net.SplitHostPort(a.Request.Host); s != nil && challenge != "" && err == nil {
		a.Header.Set("WWW-Authenticate", strings.Replace(challenge, "realm.invalid", host, 1))
	}
	return nil
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if q.URL.Path != "/token" || q.ParseForm() != nil {
		http.NotFound(w, q)
		return
	}
	user, known := s.who(q)
	if !known {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": "UNAUTHORIZED", "message": "incorrect username or password"}}})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.expired != 0 {
		now = now.Add(-time.Hour)
		if s.expired > 0 {
			s.expired--
		}
	}
	token, err := s.sign(user, access(q.Form["scope"]), now)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.given = append(s.given, token)
	a := map[string]any{"token": token, "access_token": token, "expires_in": int(tokenLife.Seconds()), "issued_at": now.UTC().Format(time.RFC3339)}
	if s.registry.options.IdentityTokens && (q.Form.Get("offline_token") == "true" || q.Form.Get("access_type") == "offline") {
		id := s.registry.options.Mark + "identity" + rand.Text()
		s.identity[id] = user
		a["refresh_token"] = id
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(a)
}

// who checks a password or an identity token.
func (s *tokenServer) who(q *http.Request) (user string, known bool) {
	if q.Method == http.MethodPost && q.PostForm.Get("grant_type") == "refresh_token" {
		s.mu.Lock()
		defer s.mu.Unlock()
		user, known = s.identity[q.PostForm.Get("refresh_token")]
		return user, known
	}
	user, password, is := q.BasicAuth()
	if !is {
		user, password = q.PostForm.Get("username"), q.PostForm.Get("password")
	}
	want, known := s.registry.options.Token[user]
	return user, known && password == want
}

type granted struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// access is what a token may do: all that was asked for, as in "repository:app:pull,push".
func access(scopes []string) []granted {
	all := []granted{}
	for _, s := range strings.Fields(strings.Join(scopes, " ")) {
		first, last := strings.Index(s, ":"), strings.LastIndex(s, ":")
		if first < last {
			all = append(all, granted{s[:first], s[first+1 : last], strings.Split(s[last+1:], ",")})
		}
	}
	return all
}

// sign makes a JSON Web Token of the CA's own key (RFC 7519, ES256 of RFC 7518).
func (s *tokenServer) sign(user string, access []granted, now time.Time) (string, error) {
	head, err := json.Marshal(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(s.registry.CA.cert.Raw)}})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{"iss": issuer, "aud": service, "sub": user, "jti": s.registry.options.Mark + rand.Text(), "access": access,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(tokenLife).Unix()})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(claims)
	digest := sha256.Sum256([]byte(text))
	a, b, err := ecdsa.Sign(rand.Reader, s.registry.CA.key, digest[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64)
	a.FillBytes(signature[:32])
	b.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// ExpireTokens has so many of the next tokens end before they are given; Always is all of them.
func (r *Registry) ExpireTokens(times int) {
	r.token.mu.Lock()
	defer r.token.mu.Unlock()
	r.token.expired = times
}

// EndTokens has the tokens that were given until then end when somebody asks the registry for a path with this
// part in it, such as "/blobs/": in the middle of a pull. It does so once.
func (r *Registry) EndTokens(part string) {
	r.token.mu.Lock()
	defer r.token.mu.Unlock()
	r.token.endAt = part
}

// end puts a token that has ended in the place of one that is to be taken so. The registry itself then says
// what it says.
func (s *tokenServer) end(q *http.Request) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endAt != "" && strings.Contains(q.URL.Path, s.endAt) {
		for _, t := range s.given {
			s.ended[t] = true
		}
		s.endAt = ""
	}
	token, is := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer ")
	if !is || !s.ended[token] {
		return
	}
	if old, err := s.sign("", []granted{}, time.Now().Add(-time.Hour)); err == nil {
		q.Header.Set("Authorization", "Bearer "+old)
	}
}

// Tokens are those that were given until now, identity tokens included: whoever has one is let in.
func (r *Registry) Tokens() []string {
	r.token.mu.Lock()
	defer r.token.mu.Unlock()
	all := append([]string(nil), r.token.given...)
	for id := range r.token.identity {
		all = append(all, id)
	}
	return all
}
