module github.com/covedesk/cove

go 1.26.3

// What we use ourselves, each with what it is for.
require (
	filippo.io/age v1.3.2 // credentials in an encrypted file
	fyne.io/fyne/v2 v2.8.1 // the window
	github.com/Code-Hex/vz/v3 v3.7.1 // Virtualization.framework: the driver on macOS
	github.com/Microsoft/go-winio v0.6.4 // named pipes with half-close on Windows
	github.com/creack/pty v1.1.24 // a terminal for the guest's shell, and for the tests
	github.com/digitalocean/go-qemu v0.0.0-20221209210016-f035778c97f7 // QMP, QEMU's monitor protocol
	github.com/distribution/reference v0.6.0 // names of images, in their many spellings
	github.com/docker/docker v28.5.2+incompatible // the engine's client: asks whether a docker context answers
	github.com/docker/docker-credential-helpers v0.9.13 // the credential-helper protocol, keychain, wincred and pass
	github.com/docker/go-connections v0.6.0 // published ports as people write them
	github.com/docker/go-units v0.5.0 // sizes as people write them
	github.com/godbus/dbus/v5 v5.2.4 // D-Bus without cgo: the Secret Service
	github.com/google/shlex v0.0.0-20191202100458-e7afc7fbc510 // words of a command line
	github.com/hanwen/go-fuse/v2 v2.12.1 // the FUSE protocol, for shared folders
	github.com/insomniacslk/dhcp v0.0.0-20260901064844-234b97448fae // the guest's address, from the hypervisor's network
	github.com/klauspost/compress v1.18.6 // zstd for the image as it is distributed
	github.com/libp2p/go-yamux/v5 v5.1.0 // streams over one byte pipe, with half-close both ways
	github.com/lima-vm/lima/v2 v2.2.0 // disk images: made and grown by nativeimgutil, foreign ones named by qemuimgutil
	github.com/mdlayher/vsock v1.4.0 // AF_VSOCK in the guest
	github.com/miekg/dns v1.1.73 // DNS messages, servers and questions
	github.com/moby/moby/api v1.56.1 // request bodies of the engine's own version, to find mounts in them
	github.com/moby/sys/atomicwriter v0.1.0 // files that are replaced whole
	github.com/opencontainers/go-digest v1.0.0 // digests of images
	github.com/opencontainers/image-spec v1.1.1 // manifests and indexes of images
	github.com/secure-systems-lab/go-securesystemslib v0.11.0 // the bytes that a DSSE envelope signs
	github.com/sigstore/protobuf-specs v0.5.0 // sigstore bundles
	github.com/sigstore/sigstore v1.10.8 // signatures of images, as cosign makes them: keys and algorithms. From 1.11 it needs Go 1.27
	github.com/sirupsen/logrus v1.10.2 // only to silence lima's packages
	github.com/spf13/cobra v1.10.2 // commands, flags, help and completion
	github.com/spf13/viper v1.21.0 // the settings file
	github.com/tailscale/hujson v0.0.0-20260727124030-b80ff77dac4f // docker's config.json, changed without touching another byte
	github.com/tidwall/gjson v1.14.2 // where a docker context leads, and the time of an event
	github.com/vishvananda/netlink v1.3.1 // the guest's network devices and routes
	golang.org/x/image v0.24.0 // glyphs of logs
	golang.org/x/net v0.62.0 // ping without privilege, a bound on a listener; httpproxy: which proxy a URL goes by
	golang.org/x/sync v0.24.0 // a group of goroutines that ends with its first error
	golang.org/x/sys v0.49.0 // system calls that the standard library lacks
	golang.org/x/term v0.47.0 // raw terminals for cove shell
	google.golang.org/protobuf v1.36.11 // reads those bundles
	gopkg.in/natefinch/lumberjack.v2 v2.2.1 // log files that stay small
	gvisor.dev/gvisor v0.0.0-20260905035102-160fafc42237 // TCP/IP in this process: the guest's network ends in it
	oras.land/oras-go/v2 v2.7.0 // a client of registries: logins and signatures, and docker's credentials for them
)


require (
	filippo.io/hpke v0.4.0 // indirect
	fyne.io/systray v1.12.3-0.20260810170012-af4e8e793ec4 // indirect
	github.com/BurntSushi/toml v1.6.0 // indirect
	github.com/Code-Hex/go-infinity-channel v1.0.0 // indirect
	github.com/FyshOS/fancyfs v0.0.1 // indirect
	github.com/VividCortex/ewma v1.2.0 // indirect
	github.com/anthonynsimon/bild v0.14.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/cheggaaa/pb/v3 v3.1.7 // indirect
	github.com/clipperhouse/uax29/v2 v2.2.0 // indirect
	github.com/containerd/continuity v0.5.0 // indirect
	github.com/containerd/errdefs v1.0.0 // indirect
	github.com/containerd/errdefs/pkg v0.3.0 // indirect
	github.com/containerd/log v0.1.0 // indirect
	github.com/coreos/go-semver v0.3.1 // indirect
	github.com/danieljoos/wincred v1.2.3 // indirect
	github.com/digitalocean/go-libvirt v0.0.0-20220804181439-8648fbde413e // indirect
	github.com/fatih/color v1.19.0 // indirect
	github.com/felixge/httpsnoop v1.0.4 // indirect
	github.com/fsnotify/fsnotify v1.9.0 // indirect
	github.com/fyne-io/image v0.1.1 // indirect
	github.com/fyne-io/oksvg v0.2.0 // indirect
	github.com/go-gl/gl v0.0.0-20260331235117-4566fea9a276 // indirect
	github.com/go-gl/glfw/v3.4/glfw v0.1.0-pre.1.0.20260707082822-2a407d02d01a // indirect
	github.com/go-logr/logr v1.4.3 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	github.com/go-text/render v0.2.1 // indirect
	github.com/go-text/typesetting v0.3.4 // indirect
	github.com/go-viper/mapstructure/v2 v2.4.0 // indirect
	github.com/google/btree v1.1.3 // indirect
	github.com/google/go-containerregistry v0.20.7 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/jeandeaual/go-locale v0.0.0-20250612000132-0ef82f21eade // indirect
	github.com/josharian/native v1.1.0 // indirect
	github.com/jsummers/gobmp v0.0.0-20230614200233-a9de23ed2e25 // indirect
	github.com/keybase/go-keychain v0.0.1 // indirect
	github.com/libp2p/go-buffer-pool v0.0.2 // indirect
	github.com/lima-vm/go-qcow2reader v0.7.1 // indirect
	github.com/mattn/go-colorable v0.1.14 // indirect
	github.com/mattn/go-isatty v0.0.22 // indirect
	github.com/mattn/go-runewidth v0.0.24 // indirect
	github.com/mdlayher/packet v1.1.2 // indirect
	github.com/mdlayher/socket v0.8.0 // indirect
	github.com/moby/docker-image-spec v1.3.1 // indirect
	github.com/moby/sys/sequential v0.6.0 // indirect
	github.com/nfnt/resize v0.0.0-20180221191011-83c6a9932646 // indirect
	github.com/nicksnyder/go-i18n/v2 v2.5.1 // indirect
	github.com/pelletier/go-toml/v2 v2.3.1 // indirect
	github.com/pierrec/lz4/v4 v4.1.26 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	github.com/rymdport/portal v0.4.2 // indirect
	github.com/sagikazarmark/locafero v0.11.0 // indirect
	github.com/sourcegraph/conc v0.3.1-0.20240121214520-5f936abd7ae8 // indirect
	github.com/spf13/afero v1.15.0 // indirect
	github.com/spf13/cast v1.10.0 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	github.com/srwiley/oksvg v0.0.0-20221011165216-be6e8873101c // indirect
	github.com/srwiley/rasterx v0.0.0-20220730225603-2ab79fcdd4ef // indirect
	github.com/stretchr/testify v1.12.1 // indirect
	github.com/subosito/gotenv v1.6.0 // indirect
	github.com/tidwall/match v1.1.1 // indirect
	github.com/tidwall/pretty v1.2.0 // indirect
	github.com/u-root/uio v0.0.0-20240224005618-d2acac8f3701 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
	github.com/youmark/pkcs8 v0.0.0-20240726163527-a2c0da244d78 // indirect
	github.com/yuin/goldmark v1.8.2 // indirect
	go.opentelemetry.io/auto/sdk v1.2.1 // indirect
	go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp v0.67.0 // indirect
	go.opentelemetry.io/otel v1.43.0 // indirect
	go.opentelemetry.io/otel/metric v1.43.0 // indirect
	go.opentelemetry.io/otel/trace v1.43.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/exp v0.0.0-20250711185948-6ae5c78190dc // indirect
	golang.org/x/mod v0.41.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.15.0 // indirect
	google.golang.org/genproto/googleapis/api v0.0.0-20260401024825-9d38bb4040a9 // indirect
)
