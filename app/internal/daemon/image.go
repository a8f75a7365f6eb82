package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/vmhost/guestimage"
)

// imageEnv names the folder of a guest image, instead of the one that came with Cove.
const imageEnv = "COVE_IMAGE"

// keptImages is how many images stay in the home: the one in use and the one before.
const keptImages = 2

// findImage verifies the guest image that belongs to this Cove and installs it in the home.
func (d *Daemon) findImage(ctx context.Context) (*guestimage.Image, error) {
	src := os.Getenv(imageEnv)
	if src == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, err
		}
		if exe, err = filepath.EvalSymlinks(exe); err != nil {
			return nil, err
		}
		src = filepath.Join(filepath.Dir(exe), "image")
	}
	dir := d.home.Dir("images")
	image, err := guestimage.Install(ctx, src, dir)
	if err != nil {
		return nil, err
	}
	d.dropImages(dir, image.Dir)
	return image, nil
}

// dropImages removes images that are no longer needed, the oldest first.
func (d *Daemon) dropImages(dir, used string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	type old struct {
		path string
		at   int64
	}
	var olds []old
	for _, e := range entries {
		info, err := e.Info()
		path := filepath.Join(dir, e.Name())
		if err == nil && e.IsDir() && path != used {
			olds = append(olds, old{path, info.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(olds, func(a, b old) int { return int(min(1, max(-1, b.at-a.at))) })
	for _, o := range olds[min(len(olds), keptImages-1):] {
		d.log.Info("remove an old guest image", "path", o.path)
		if err := os.RemoveAll(o.path); err != nil {
			d.log.Warn("remove an old guest image", "err", err)
		}
	}
}

// Image is what the guest image holds: see localapi.Core.
func (d *Daemon) Image(ctx context.Context) (api.Image, error) {
	i, err := d.findImage(ctx)
	if err != nil {
		err = failure(err)
		var e *api.Error
		if !errors.As(err, &e) {
			err = &api.Error{Failure: api.Failure{Cause: api.CauseInternal, Summary: "The guest image cannot be read: " + err.Error() + "."}}
		}
		return api.Image{}, err
	}
	out := api.Image{Digest: i.Info.Digest, Dir: i.Dir, Arch: i.Info.Arch, Kernel: i.Info.Kernel, Size: i.Info.Size(), Compressed: i.Info.Compressed, Packages: i.Info.Packages}
	for _, c := range i.Info.Components {
		out.Components = append(out.Components, api.Component{Name: c.Name, Version: c.Version, Source: c.Source, Stands: c.Stands})
	}
	return out, nil
}
