package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// ask asks the gateway from the guest.
func (g *guest) ask(name string, kind uint16, over string) (*dns.Msg, error) {
	at := tcpip.FullAddress{NIC: nic, Addr: to4(Gateway), Port: 53}
	var conn net.Conn
	var err error
	if over == "tcp" {
		conn, err = gonet.DialContextTCP(within(g.t), g.stack, at, ipv4.ProtocolNumber)
	} else {
		conn, err = gonet.DialUDP(g.stack, nil, &at, ipv4.ProtocolNumber)
	}
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if over == "udp" {
		conn = packets{conn} // the library frames what is no net.PacketConn
	}
	c := &dns.Conn{Conn: conn}
	if err := c.WriteMsg(new(dns.Msg).SetQuestion(name, kind)); err != nil {
		return nil, err
	}
	return c.ReadMsg()
}

type packets struct{ net.Conn }

func (packets) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, errors.ErrUnsupported }
func (packets) WriteTo([]byte, net.Addr) (int, error)  { return 0, errors.ErrUnsupported }

// upstream is a nameserver on the host's loopback, by UDP and TCP. It keeps what it was asked.
type upstream struct {
	address string
	mu      sync.Mutex
	asked   []string
}

func serveUpstream(t *testing.T) *upstream {
	t.Helper()
	u := new(upstream)
	handler := func(over string) dns.HandlerFunc {
		return func(w dns.ResponseWriter, q *dns.Msg) {
			name := strings.ToLower(q.Question[0].Name)
			u.mu.Lock()
			u.asked = append(u.asked, name)
			u.mu.Unlock()
			w.WriteMsg(u.answer(q, name, over))
		}
	}
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.address = p.LocalAddr().String()
	l, err := net.Listen("tcp", u.address)
	if err != nil {
		t.Skip("the port is taken by TCP:", err)
	}
	for _, s := range []*dns.Server{{PacketConn: p, Handler: handler("udp")}, {Listener: l, Handler: handler("tcp")}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return u
}

func (u *upstream) answer(q *dns.Msg, name, over string) *dns.Msg {
	a := new(dns.Msg).SetReply(q)
	add := func(text string) {
		r, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		a.Answer = append(a.Answer, r)
	}
	switch name + dns.TypeToString[q.Question[0].Qtype] {
	case "right.example.A":
		add("right.example. 77 IN A 203.0.113.9")
	case "right.example.AAAA":
		add("right.example. 77 IN AAAA 2001:db8::9")
	case "right.example.TXT":
		add(`right.example. 77 IN TXT "one" "two"`)
	case "right.example.CAA":
		add(`right.example. 77 IN CAA 0 issue "ca.example"`)
	case "printer.office.example.A":
		add("printer.office.example. 77 IN A 203.0.113.10")
	case "broken.example.A":
		a.Rcode = dns.RcodeServerFailure
	case "empty.example.A":
	case "long.example.TXT":
		if over == "udp" {
			a.Truncated = true
			break
		}
		for i := range 60 {
			add(fmt.Sprintf(`long.example. 77 IN TXT "%03d %s"`, i, strings.Repeat("x", 200)))
		}
	default:
		a.Rcode = dns.RcodeNameError
	}
	return a
}

// fileResolver resolves by files of the test's, and by one server whatever they name.
func fileResolver(t *testing.T, hosts, conf string, u *upstream) *FileResolver {
	t.Helper()
	dir := t.TempDir()
	r := &FileResolver{Hosts: filepath.Join(dir, "hosts"), Servers: filepath.Join(dir, "resolv.conf")}
	for path, text := range map[string]string{r.Hosts: hosts, r.Servers: conf} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.Exchange = func(ctx context.Context, m *dns.Msg, over, _ string) (*dns.Msg, error) {
		return exchangeOver(ctx, m, over, u.address)
	}
	return r
}

// said is an answer in short: its code, and its records without their names.
func said(m *dns.Msg) string {
	s := dns.RcodeToString[m.Rcode]
	if m.Truncated {
		s += " TC"
	}
	for _, r := range m.Answer {
		s += " " + strings.Join(strings.Fields(r.String())[3:], " ")
	}
	return s
}

func TestNames(t *testing.T) {
	u := serveUpstream(t)
	hosts := "127.0.0.1 localhost\n127.0.1.1 thishost thishost.example\n# 203.0.113.1 nobody.example\n203.0.113.44 Filed.Example other # comment\n::1 sixth.example\n"
	g := plug(t, Config{Resolver: fileResolver(t, hosts, "nameserver 127.0.0.53\nsearch nowhere.example office.example\n", u)})
	for _, row := range []struct {
		name string
		kind uint16
		over string
		want string
	}{
		{"right.example.", dns.TypeA, "udp", "NOERROR A 203.0.113.9"},
		{"RIGHT.Example.", dns.TypeA, "udp", "NOERROR A 203.0.113.9"},
		{"right.example.", dns.TypeA, "tcp", "NOERROR A 203.0.113.9"},
		{"right.example.", dns.TypeAAAA, "udp", "NOERROR AAAA 2001:db8::9"},
		{"right.example.", dns.TypeTXT, "udp", `NOERROR TXT "one" "two"`},
		{"right.example.", dns.TypeCAA, "udp", `NOERROR CAA 0 issue "ca.example"`},
		{"wrong.example.", dns.TypeA, "udp", "NXDOMAIN"},
		{"broken.example.", dns.TypeA, "udp", "SERVFAIL"},
		{"empty.example.", dns.TypeA, "udp", "NOERROR"},
		{"long.example.", dns.TypeTXT, "udp", "NOERROR TC"},
		{"printer.", dns.TypeA, "udp", "NOERROR CNAME printer.office.example. A 203.0.113.10"},
		{"scanner.", dns.TypeA, "udp", "NXDOMAIN"},
		{"filed.example.", dns.TypeA, "udp", "NOERROR A 203.0.113.44"},
		{"filed.example.", dns.TypeAAAA, "udp", "NOERROR"},
		{"44.113.0.203.in-addr.arpa.", dns.TypePTR, "udp", "NOERROR PTR filed.example."},
		{"thishost.", dns.TypeA, "udp", "NOERROR A 192.168.127.254"},
		{"sixth.example.", dns.TypeA, "udp", "NOERROR A 192.168.127.254"},
		{"nobody.example.", dns.TypeA, "udp", "NXDOMAIN"},
		{"localhost.", dns.TypeA, "udp", "NOERROR A 127.0.0.1"},
		{"host.docker.internal.", dns.TypeA, "udp", "NOERROR A 192.168.127.254"},
		{"Host.Docker.Internal.", dns.TypeA, "tcp", "NOERROR A 192.168.127.254"},
		{"host.docker.internal.", dns.TypeAAAA, "udp", "NOERROR"},
		{"gateway.docker.internal.", dns.TypeA, "udp", "NOERROR A 192.168.127.1"},
		{"else.docker.internal.", dns.TypeA, "udp", "NXDOMAIN"},
		{"254.127.168.192.in-addr.arpa.", dns.TypePTR, "udp", "NOERROR PTR host.docker.internal."},
		{"7.127.168.192.in-addr.arpa.", dns.TypePTR, "udp", "NXDOMAIN"},
	} {
		m, err := g.ask(row.name, row.kind, row.over)
		if err != nil {
			t.Errorf("%s %s by %s: %v", dns.TypeToString[row.kind], row.name, row.over, err)
			continue
		}
		if got := said(m); got != row.want || m.Question[0].Name != row.name {
			t.Errorf("%s %s by %s says %q to %s; want %q", dns.TypeToString[row.kind], row.name, row.over, got, m.Question[0].Name, row.want)
		}
	}
	if m, err := g.ask("long.example.", dns.TypeTXT, "tcp"); err != nil || len(m.Answer) != 60 {
		t.Errorf("a long answer by TCP: %v, %v; want 60 records", m, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, name := range u.asked {
		if strings.Contains(name, "docker.internal") || strings.Contains(name, "127.168.192") || strings.HasPrefix(name, "localhost") {
			t.Errorf("the host's nameserver was asked for %s, which is ours alone", name)
		}
	}
}

// The nameservers are asked in their order; one that is dead or fails is not the last word.
func TestServersTakeTurns(t *testing.T) {
	ok := func(m *dns.Msg) *dns.Msg { return new(dns.Msg).SetReply(m) }
	for _, row := range []struct {
		says   string
		answer func(server string, m *dns.Msg) (*dns.Msg, error)
		want   string
	}{
		{"the second answers for a dead first", func(s string, m *dns.Msg) (*dns.Msg, error) {
			if s == "192.0.2.1:53" {
				return nil, errors.New("dead")
			}
			return ok(m), nil
		}, "NOERROR"},
		{"and for a failing one", func(s string, m *dns.Msg) (*dns.Msg, error) {
			if s == "192.0.2.1:53" {
				return new(dns.Msg).SetRcode(m, dns.RcodeServerFailure), nil
			}
			return ok(m), nil
		}, "NOERROR"},
		{"no such name is an answer", func(s string, m *dns.Msg) (*dns.Msg, error) {
			if s == "192.0.2.1:53" {
				return new(dns.Msg).SetRcode(m, dns.RcodeNameError), nil
			}
			return ok(m), nil
		}, "NXDOMAIN"},
		{"all are dead", func(string, *dns.Msg) (*dns.Msg, error) { return nil, errors.New("dead") }, "SERVFAIL"},
		{"all fail", func(_ string, m *dns.Msg) (*dns.Msg, error) {
			return new(dns.Msg).SetRcode(m, dns.RcodeServerFailure), nil
		}, "SERVFAIL"},
	} {
		r := fileResolver(t, "", "nameserver 192.0.2.1\nnameserver 192.0.2.2\n", &upstream{})
		r.Exchange = func(_ context.Context, m *dns.Msg, _, server string) (*dns.Msg, error) { return row.answer(server, m) }
		g := plug(t, Config{Resolver: r})
		m, err := g.ask("a.example.", dns.TypeA, "udp")
		if err != nil || said(m) != row.want {
			t.Errorf("%s: %v, %v; want %s", row.says, m, err, row.want)
		}
	}
}

// The host's network is gone for a while and comes back with another resolver and another way out. The
// guest's network needs nothing to be told.
func TestTheHostsNetworkChanges(t *testing.T) {
	u := serveUpstream(t)
	r := fileResolver(t, "", "nameserver 192.0.2.1\n", u)
	var up atomic.Bool
	var server atomic.Value
	server.Store("192.0.2.1:53")
	r.Exchange = func(ctx context.Context, m *dns.Msg, over, at string) (*dns.Msg, error) {
		if !up.Load() || at != server.Load() {
			return nil, errors.New("network is unreachable")
		}
		return exchangeOver(ctx, m, over, u.address)
	}
	port := onHost(t, "127.0.0.1:0", func(c *net.TCPConn) { c.Write([]byte("hello")); c.Close() })
	var d net.Dialer
	g := plug(t, Config{Resolver: r, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if !up.Load() {
			return nil, &net.OpError{Op: "dial", Err: errNetUnreachable}
		}
		return d.DialContext(ctx, network, fmt.Sprint("127.0.0.1:", port))
	}})
	outside := netipPort("203.0.113.9:80")
	works := func() bool {
		m, err := g.ask("right.example.", dns.TypeA, "udp")
		c, dialed := g.dial(within(t), outside)
		if dialed == nil {
			c.Close()
		}
		return err == nil && said(m) == "NOERROR A 203.0.113.9" && dialed == nil
	}
	up.Store(true)
	if !works() {
		t.Fatal("it does not work at first")
	}
	up.Store(false)
	if m, err := g.ask("right.example.", dns.TypeA, "udp"); err != nil || said(m) != "SERVFAIL" {
		t.Errorf("without a network a name is %v, %v; want SERVFAIL", m, err)
	}
	if _, err := g.dial(within(t), outside); err == nil {
		t.Error("without a network a dial works")
	}
	server.Store("192.0.2.7:53")
	if err := os.WriteFile(r.Servers, []byte("nameserver 192.0.2.7\noptions edns0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	up.Store(true)
	until(t, works)
}

func TestResolvConf(t *testing.T) {
	c := parseResolvConf("# nameserver 1.1.1.1\ndomain old.example\nnameserver fe80::1%eth0\nnameserver 10.0.0.1 \nsearch a.example b.example. .\nnameserver nonsense\nnameserver ::1\nnameserver 10.0.0.4\n")
	want := "[[fe80::1%eth0]:53 10.0.0.1:53 [::1]:53] [a.example. b.example.]"
	if got := fmt.Sprint(c.servers, c.search); got != want {
		t.Errorf("parseResolvConf = %s; want %s", got, want)
	}
	if got := parseResolvConf("").servers; len(got) != 1 || got[0] != "127.0.0.1:53" {
		t.Errorf("an empty resolv.conf means %v; want the host's own", got)
	}
}

func TestReverseNames(t *testing.T) {
	for name, want := range map[string]string{
		"44.113.0.203.in-addr.arpa.": "203.0.113.44", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.": "2001:db8::1",
		"113.0.203.in-addr.arpa.": "", "x.113.0.203.in-addr.arpa.": "", "arpa.": "", "example.": "",
	} {
		if got := fromReverse(name); got != want {
			t.Errorf("fromReverse(%s) = %q; want %q", name, got, want)
		}
	}
}
