package model

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
)

// Image is one name of an image, or an image without a name.
type Image struct {
	ID, Ref string    // Ref is empty where it has no name
	Size    int64     // bytes, what it shares with others included
	Created time.Time // zero where its maker did not say
	Users   []string  // names of containers
}

// Short is the short form of its ID.
func (i *Image) Short() string { return short(i.ID) }

// Name is what docker's commands take for it.
func (i *Image) Name() string { return cmp.Or(i.Ref, i.Short()) }

// Key tells it from others in a list: an image can have several names.
func (i *Image) Key() string { return i.ID + " " + i.Ref }

func imagesOf(list []image.Summary, containers map[string]*Container) []Image {
	users := map[string][]string{}
	for _, c := range containers {
		users[c.ImageID] = append(users[c.ImageID], c.Name)
	}
	var out []Image
	for _, s := range list {
		i := Image{ID: s.ID, Size: s.Size, Users: users[s.ID]}
		slices.Sort(i.Users)
		if s.Created > 0 {
			i.Created = time.Unix(s.Created, 0)
		}
		named := false
		for _, ref := range s.RepoTags {
			if ref != "<none>:<none>" {
				i.Ref, named = ref, true
				out = append(out, i)
			}
		}
		for _, ref := range s.RepoDigests {
			if repo, _, ok := strings.Cut(ref, "@"); ok && !named && repo != "<none>" {
				i.Ref, named = ref, true
				out = append(out, i)
			}
		}
		if !named {
			i.Ref = ""
			out = append(out, i)
		}
	}
	return out
}

// ListImages answers a query; of its filters, Running are those in use and Stopped those that are not.
func ListImages(all []Image, q Query) []Image {
	words := strings.Fields(strings.ToLower(q.Text))
	out := slices.DeleteFunc(slices.Clone(all), func(i Image) bool {
		if q.Filter == Running && len(i.Users) == 0 || q.Filter == Stopped && len(i.Users) > 0 {
			return true
		}
		text := strings.ToLower(i.Ref + "\n" + i.Short())
		return slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
	})
	slices.SortStableFunc(out, func(a, b Image) int {
		var n int
		switch q.Sort {
		case BySize:
			n = cmp.Compare(a.Size, b.Size)
		case ByCreated:
			n = a.Created.Compare(b.Created)
		}
		n = cmp.Or(n, -cmp.Compare(min(len(a.Ref), 1), min(len(b.Ref), 1)), strings.Compare(a.Ref, b.Ref), strings.Compare(a.ID, b.ID))
		if q.Reverse {
			n = -n
		}
		return n
	})
	return out
}

// RemoveImageCommand removes it on the command line.
func RemoveImageCommand(names ...string) string {
	return Quote(append([]string{"docker", "rmi"}, names...)...)
}

// RemoveImages takes names off images; the last name takes the image with it. What goes wrong is told.
func (s *Store) RemoveImages(names ...string) {
	s.background(func(ctx context.Context) {
		for _, n := range names {
			if _, err := s.docker.ImageRemove(ctx, n, image.RemoveOptions{PruneChildren: true}); err != nil && ctx.Err() == nil {
				s.tell(Notice{Bad, n + " could not be removed", sentence(err)})
			}
		}
		signal(s.relist)
	})
}

func (s *Store) tell(n Notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellLocked(n)
}

// Prunable is what a prune of images would do.
type Prunable struct {
	Images int
	Bytes  int64 // that no image which stays shares
}

// PruneCommand is the command that removes every image that no container uses.
const PruneCommand = "docker image prune --all"

// Prunable asks the engine what a prune would free. That can take seconds.
func (s *Store) Prunable(ctx context.Context) (Prunable, error) {
	u, err := s.docker.DiskUsage(ctx, types.DiskUsageOptions{Types: []types.DiskUsageObject{types.ImageObject}})
	if err != nil {
		return Prunable{}, errors.New(sentence(err))
	}
	var p Prunable
	for _, i := range u.Images {
		if i.Containers == 0 {
			p.Images++
			p.Bytes += i.Size - max(0, i.SharedSize)
		}
	}
	return p, nil
}

// Prune removes every image that no container uses, and tells what that freed.
func (s *Store) Prune() {
	s.background(func(ctx context.Context) {
		r, err := s.docker.ImagesPrune(ctx, filters.NewArgs(filters.Arg("dangling", "false")))
		switch {
		case ctx.Err() != nil:
		case err != nil:
			s.tell(Notice{Bad, "Unused images could not be removed", sentence(err)})
		default:
			s.tell(Notice{Good, "Unused images removed", Bytes(int64(r.SpaceReclaimed)) + " freed"})
		}
		signal(s.relist)
	})
}

// Pull is an image on its way.
type Pull struct {
	Ref    string
	Layers []Layer // in the order of their first word
	Text   string  // what is being done, where no layer says more
	Done   bool
	Error  string
	Begun  time.Time
	Ended  time.Time

	cancel context.CancelFunc
}

// Layer is a part of it.
type Layer struct {
	ID, Status     string
	Current, Total int64 // bytes of the step that the status names; Total is 0 where that is not known
	Size           int64 // bytes to fetch, once they are known
	Got            int64 // of them
	Done           bool
}

// Fetched are the bytes that came and those that are to come, of the layers whose size is known.
func (p *Pull) Fetched() (got, all int64) {
	for _, l := range p.Layers {
		got += l.Got
		all += l.Size
	}
	return got, all
}

// Share is how much of it is done, 0 to 1.
func (p *Pull) Share() float64 {
	if p.Done {
		return 1
	}
	if len(p.Layers) == 0 {
		return 0
	}
	var sum float64
	for _, l := range p.Layers {
		switch {
		case l.Done:
			sum++
		case l.Size > 0: // fetching is most of the work
			sum += 0.9 * float64(l.Got) / float64(l.Size)
		}
	}
	return sum / float64(len(p.Layers))
}

// PullCommand is the same on the command line.
func PullCommand(ref string) string { return Quote("docker", "pull", ref) }

// Ref completes the name of an image as docker does, or says what is wrong with it.
func Ref(name string) (string, error) {
	named, err := reference.ParseDockerRef(strings.TrimSpace(name))
	if err != nil {
		return "", fmt.Errorf("%q is not the name of an image: write NAME, NAME:TAG or REGISTRY/NAME:TAG, in small letters", Plain(name))
	}
	return reference.FamiliarString(named), nil
}

// progress is one line of a pull.
type progress struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Error  string `json:"error"`
	Detail struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
}

// say takes a line in.
func (p *Pull) say(m progress) {
	layer := false
	switch m.Status {
	case "Pulling fs layer", "Waiting", "Downloading", "Verifying Checksum", "Download complete", "Extracting", "Pull complete", "Already exists", "Retrying in", "Unpacking":
		layer = m.ID != ""
	}
	if !layer && !slices.ContainsFunc(p.Layers, func(l Layer) bool { return l.ID == m.ID }) {
		p.Text = Plain(m.Status)
		return
	}
	i := slices.IndexFunc(p.Layers, func(l Layer) bool { return l.ID == m.ID })
	if i < 0 {
		p.Layers = append(p.Layers, Layer{ID: m.ID})
		i = len(p.Layers) - 1
	}
	l := &p.Layers[i]
	l.Status, l.Current, l.Total = Plain(m.Status), m.Detail.Current, m.Detail.Total
	switch m.Status {
	case "Downloading":
		if m.Detail.Total > 0 {
			l.Size = m.Detail.Total
		}
		l.Got = max(l.Got, min(m.Detail.Current, l.Size))
	case "Verifying Checksum", "Download complete", "Extracting":
		l.Got = l.Size
	case "Pull complete", "Already exists":
		l.Done, l.Got = true, l.Size
	}
}

// Pull fetches an image. It goes on when nobody looks, until Cancel.
func (s *Store) Pull(ref string) *Pull {
	p := &Pull{Ref: ref, Begun: s.now()}
	ctx := context.Background()
	s.mu.Lock()
	if s.ctx != nil {
		ctx = s.ctx
	}
	ctx, p.cancel = context.WithCancel(ctx)
	s.pulls = append(s.pulls, p)
	s.mu.Unlock()
	s.background(func(context.Context) {
		err := s.pull(ctx, ref, func(m progress) {
			s.mu.Lock()
			defer s.mu.Unlock()
			p.say(m)
			s.touchLocked()
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		p.Ended = s.now()
		p.Done = err == nil
		switch {
		case err == nil:
			s.tellLocked(Notice{Good, ref + " is here", fmt.Sprintf("Pulled in %s", p.Ended.Sub(p.Begun).Round(time.Second))})
		case ctx.Err() != nil:
			p.Error = "Cancelled."
		default:
			p.Error = sentence(err)
			s.tellLocked(Notice{Bad, ref + " could not be pulled", p.Error})
		}
		p.cancel()
		s.pulls = slices.DeleteFunc(s.pulls, func(o *Pull) bool { return o == p })
		signal(s.relist)
		s.stirLocked()
	})
	return p
}

func (s *Store) pull(ctx context.Context, ref string, say func(progress)) error {
	body, err := s.docker.ImagePull(ctx, ref, image.PullOptions{})
	if err != nil {
		return err
	}
	defer body.Close()
	for d := json.NewDecoder(body); ; {
		var m progress
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if m.Error != "" {
			return errors.New(m.Error)
		}
		say(m)
	}
}

// Cancel ends a pull; what it fetched so far is the engine's to keep or drop.
func (p *Pull) Cancel() { p.cancel() }

// Seen is a pull as it is now.
func (s *Store) Seen(p *Pull) Pull {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := *p
	q.Layers = slices.Clone(p.Layers)
	return q
}

// Pulls are those under way.
func (s *Store) Pulls() []*Pull {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.pulls)
}
