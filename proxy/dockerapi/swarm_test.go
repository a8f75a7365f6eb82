package dockerapi

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/network"
)

func TestASwarmsNetworkIsMadeBeforeTheEngineMakesIt(t *testing.T) {
	for _, there := range []int{http.StatusCreated, http.StatusConflict, http.StatusInternalServerError} {
		var mu sync.Mutex
		var calls []string
		d := engine(t, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, r.Method+" "+r.URL.Path)
			if r.URL.Path != "/networks/create" {
				io.WriteString(w, `"node"`)
				return
			}
			var made network.CreateRequest
			if err := json.NewDecoder(r.Body).Decode(&made); err != nil || made.Name != "docker_gwbridge" || made.Driver != "bridge" {
				t.Errorf("the network that is made: %+v, %v", made, err)
			}
			w.WriteHeader(there)
		})
		c, r := client(t, front(t, awake(d)))
		resp := ask(t, c, r, "POST /v1.56/swarm/init HTTP/1.1\nHost: d\nContent-Length: 2", "{}")
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK || string(b) != `"node"` {
			t.Errorf("swarm init, when the network gives %d, is answered %s %s", there, resp.Status, b)
		}
		mu.Lock()
		if want := []string{"POST /networks/create", "POST /v1.56/swarm/init"}; !slices.Equal(calls, want) {
			t.Errorf("the engine heard %q; want %q", calls, want)
		}
		mu.Unlock()
	}
}
