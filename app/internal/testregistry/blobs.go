package testregistry

import (
	"crypto/rand"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

var blobPath = regexp.MustCompile(`^/v2/.+/blobs/sha256:[0-9a-f]{64}$`)

// blobServer gives blobs to whoever has a URL that it signed.
type blobServer struct {
	registry *Registry
	port     string

	mu     sync.Mutex
	signed map[string]string // path by signature
	asks   bool
}

// AskElsewhere has the second server want a password, as one would that is after those of the first.
func (r *Registry) AskElsewhere(on bool) {
	r.blobs.mu.Lock()
	defer r.blobs.mu.Unlock()
	r.blobs.asks = on
}

// send answers with the way to a blob, if the registry would give it to this client.
func (b *blobServer) send(w http.ResponseWriter, q *http.Request) bool {
	head := q.Clone(q.Context())
	head.Method = http.MethodHead
	asked := &answer{header: http.Header{}}
	b.registry.real.ServeHTTP(asked, head)
	if asked.code != http.StatusOK {
		return false
	}
	digest := q.URL.Path[len(q.URL.Path)-64:]
	to := url.URL{Scheme: b.registry.scheme(), Host: net.JoinHostPort(b.registry.options.RedirectBlobs, b.port), Path: "/" + digest}
	signature := b.registry.options.Mark + rand.Text()
	b.mu.Lock()
	if b.signed == nil {
		b.signed = map[string]string{}
	}
	b.signed[signature] = to.Path
	b.mu.Unlock()
	to.RawQuery = url.Values{"signature": {signature}}.Encode()
	http.Redirect(w, q, to.String(), http.StatusTemporaryRedirect)
	return true
}

func (b *blobServer) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	b.mu.Lock()
	path, is := b.signed[q.URL.Query().Get("signature")]
	asks := b.asks
	b.mu.Unlock()
	if asks {
		w.Header().Set("WWW-Authenticate", `Basic realm="`+service+`"`)
		http.Error(w, "log in", http.StatusUnauthorized)
		return
	}
	if !is || path != q.URL.Path {
		http.Error(w, "the URL is not signed", http.StatusForbidden)
		return
	}
	digest := path[1:]
	f, err := os.Open(filepath.Join(b.registry.folder, "docker/registry/v2/blobs/sha256", digest[:2], digest, "data"))
	if err != nil {
		http.Error(w, "no such blob", http.StatusNotFound)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(b.registry.faults.on(w), q, "", time.Time{}, f)
}

// Signatures are those in the URLs that clients were sent to until now: whoever has one gets the blob.
func (r *Registry) Signatures() []string {
	r.blobs.mu.Lock()
	defer r.blobs.mu.Unlock()
	var all []string
	for s := range r.blobs.signed {
		all = append(all, s)
	}
	return all
}

// answer is an answer that nobody reads.
type answer struct {
	header http.Header
	code   int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(code int)        { a.code = code }
func (a *answer) Write(b []byte) (int, error) { return len(b), nil }
