//go:build linux

// Command bench boots the built Cove for real and prints docs/performance.md's table: each figure beside
// its reference from the same run, because a figure alone says little of a shared machine. Run it with
// `make bench`.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
)

// bench is one run.
type bench struct {
	bin  string
	work string
	home api.Home
	*client.Client
	rows [][4]string
}

func main() {
	bin := flag.String("bin", "bin", "folder of the built programs")
	mib := flag.Int64("mib", 16, "bytes moved by the throughput rows, in MiB")
	only := flag.String("only", ".", "regular expression of the parts to run: image, starts, pings, throughput, ports, shares, network, connections, disk, idle, memory, sleep; starts always runs")
	flag.Parse()
	chosen, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: -only:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *bin, *mib<<20, chosen); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin string, bytes int64, chosen *regexp.Regexp) error {
	abs, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("/tmp", "cove-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	b := &bench{bin: abs, work: work, home: api.Home(filepath.Join(work, "h"))}
	b.Client = client.New(b.home)
	defer b.cove(context.Background(), "quit")
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"image", b.image}, {"starts", b.starts}, {"pings", b.pings},
		{"throughput", func(ctx context.Context) error { return b.throughput(ctx, bytes) }},
		{"ports", func(ctx context.Context) error { return b.ports(ctx, bytes) }},
		{"shares", b.shares}, {"network", b.network}, {"connections", b.connections}, {"disk", b.disk}, {"idle", b.idle}, {"memory", b.givenBack}, {"sleep", b.sleep},
	} {
		if !chosen.MatchString(part.name) && part.name != "starts" { // it starts the engine
			continue
		}
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	b.print()
	return nil
}

// row adds a row: what, the figure, its reference, and what they come to.
func (b *bench) row(what, figure, reference, ratio string) {
	b.rows = append(b.rows, [4]string{what, figure, reference, ratio})
	fmt.Fprintf(os.Stderr, "    %s: %s (%s) %s\n", what, figure, reference, ratio)
}

func (b *bench) print() {
	fmt.Printf("%s, %s, %d CPUs, %s\n\n", time.Now().UTC().Format("2006-01-02"), runtime.GOOS+"/"+runtime.GOARCH, runtime.NumCPU(), processor())
	fmt.Println("| what | figure | reference in the same run | ratio |\n|---|---|---|---|")
	for _, r := range b.rows {
		fmt.Printf("| %s |\n", strings.Join(r[:], " | "))
	}
}

func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

func (b *bench) environ() []string {
	return append(os.Environ(), api.HomeEnv+"="+string(b.home), "DOCKER_CONFIG="+filepath.Join(b.work, "docker"), "DOCKER_HOST="+b.home.DockerHost())
}

// program runs one of ours and gives its output.
func (b *bench) program(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, name), args...)
	cmd.Env = b.environ()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

func (b *bench) cove(ctx context.Context, args ...string) (string, error) {
	return b.program(ctx, "cove", args...)
}

// inGuest makes calls of the engine from inside the guest.
func (b *bench) inGuest(ctx context.Context, args ...string) ([]float64, error) {
	out, err := b.cove(ctx, append([]string{"shell", "--", "/proc/1/exe", "bench"}, args...)...)
	if err != nil {
		return nil, err
	}
	var r struct{ Seconds []float64 }
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return nil, fmt.Errorf("what the guest measured: %w", err)
	}
	slices.Sort(r.Seconds)
	return r.Seconds, nil
}

func (b *bench) image(ctx context.Context) error {
	out, err := b.cove(ctx, "image", "info", "--json")
	if err != nil {
		return err
	}
	var i api.Image
	if err := json.Unmarshal([]byte(out), &i); err != nil {
		return err
	}
	b.row("guest image, compressed", fmt.Sprintf("%.0f MB", float64(i.Compressed)/1e6), fmt.Sprintf("%.0f MB on disk", float64(i.Size)/1e6), "")
	return nil
}

func quantile(sorted []float64, q float64) float64 {
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*q))]
}

func ms(s float64) string { return fmt.Sprintf("%.2f ms", s*1e3) }
