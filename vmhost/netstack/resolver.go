package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// How long the host's nameservers may take. Together it stays under answerPatience.
const (
	serverPatience = 3 * time.Second
	rounds         = 2
	maxServers     = 3 // as many as the C library asks (resolv.conf(5), MAXNS)
)

// FileResolver answers as a host does whose resolver is set up by files: the hosts file first, then the
// nameservers of resolv.conf, whose answers are passed on as they are. Where a local stub such as
// systemd-resolved is the nameserver, its split DNS counts too. Both files are read again when they change.
type FileResolver struct {
	Hosts   string // path of the hosts file
	Servers string // path of resolv.conf

	// Exchange asks one server; nil asks it for real. A test may stand in.
	Exchange func(ctx context.Context, question *dns.Msg, over, server string) (*dns.Msg, error)

	hosts   cached[hostsFile]
	servers cached[resolvConf]
}

var _ Resolver = (*FileResolver)(nil)

// Answer answers by the files.
func (r *FileResolver) Answer(ctx context.Context, question *dns.Msg, over string) (*dns.Msg, error) {
	if a := r.fromHosts(question); a != nil {
		return a, nil
	}
	conf := r.servers.read(r.Servers, parseResolvConf)
	q := question.Question[0]
	if label := strings.TrimSuffix(q.Name, "."); label != "" && !strings.Contains(label, ".") && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA) {
		for _, domain := range conf.search {
			a, err := r.searched(ctx, question, over, domain, conf)
			if err != nil || a.Rcode != dns.RcodeNameError {
				return a, err
			}
		}
	}
	return r.ask(ctx, question, over, conf)
}

// searched asks for a name of one label in one of the host's search domains, as a program on the host
// would. The answer says what the name stands for, so that it is one for the name that was asked.
func (r *FileResolver) searched(ctx context.Context, question *dns.Msg, over, domain string, conf resolvConf) (*dns.Msg, error) {
	longer := question.Copy()
	name := question.Question[0].Name + domain
	if _, ok := dns.IsDomainName(name); !ok {
		return new(dns.Msg).SetRcode(question, dns.RcodeNameError), nil
	}
	longer.Question[0].Name = name
	a, err := r.ask(ctx, longer, over, conf)
	if err != nil || a.Rcode != dns.RcodeSuccess {
		return a, err
	}
	a = a.Copy()
	alias := &dns.CNAME{Hdr: dns.RR_Header{Name: question.Question[0].Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: ownTTL}, Target: name}
	a.Answer = append([]dns.RR{alias}, a.Answer...)
	return a, nil
}

// ask asks the nameservers in their order until one gives an answer that means something.
func (r *FileResolver) ask(ctx context.Context, question *dns.Msg, over string, conf resolvConf) (*dns.Msg, error) {
	exchange := r.Exchange
	if exchange == nil {
		exchange = exchangeOver
	}
	var failure *dns.Msg
	var last error
	for range rounds {
		for _, server := range conf.servers {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			one, cancel := context.WithTimeout(ctx, serverPatience)
			a, err := exchange(one, question, over, server)
			cancel()
			switch {
			case err != nil:
				last = err
			case a.Rcode == dns.RcodeServerFailure || a.Rcode == dns.RcodeRefused || a.Rcode == dns.RcodeNotImplemented:
				failure = a // another server may know more
			default:
				return a, nil
			}
		}
		if failure != nil { // somebody is there, and has said no
			return failure, nil
		}
	}
	return nil, fmt.Errorf("ask the host's nameservers %v: %w", conf.servers, last)
}

// exchangeOver asks one server by a new socket, so that it takes the host's route of this moment. The
// question goes out as the guest asked it, under a number of our own: somebody who sees the guest's must
// not be able to answer.
func exchangeOver(ctx context.Context, question *dns.Msg, over, server string) (*dns.Msg, error) {
	q := question.Copy()
	q.Id = dns.Id()
	size := uint16(dns.MinMsgSize)
	if e := q.IsEdns0(); e != nil {
		size = max(size, e.UDPSize())
	}
	c := dns.Client{Net: over, UDPSize: size, Timeout: serverPatience}
	a, _, err := c.ExchangeContext(ctx, q, server)
	if err != nil {
		return nil, err
	}
	if len(a.Question) != 1 || !strings.EqualFold(a.Question[0].Name, q.Question[0].Name) || a.Question[0].Qtype != q.Question[0].Qtype {
		return nil, errors.New("the answer is to another question")
	}
	return a, nil
}

// fromHosts answers from the hosts file; nil means that it says nothing.
func (r *FileResolver) fromHosts(question *dns.Msg) *dns.Msg {
	q := question.Question[0]
	file := r.hosts.read(r.Hosts, parseHosts)
	a := new(dns.Msg).SetReply(question)
	name := strings.ToLower(q.Name)
	switch q.Qtype {
	case dns.TypeA, dns.TypeAAAA:
		addresses, is := file.byName[name]
		if !is {
			return nil
		}
		for _, addr := range addresses {
			if addr.Is4() == (q.Qtype == dns.TypeA) {
				a.Answer = append(a.Answer, record(q.Name, addr))
			}
		}
	case dns.TypePTR:
		own, is := file.byReverse[name]
		if !is {
			return nil
		}
		a.Answer = append(a.Answer, &dns.PTR{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ownTTL}, Ptr: own})
	default:
		return nil
	}
	return a
}

// hostsFile is hosts(5).
type hostsFile struct {
	byName    map[string][]netip.Addr
	byReverse map[string]string
}

// parseHosts reads a hosts file. A name for the host's loopback is one for [Host] to the guest, whose
// own loopback is another.
func parseHosts(text string) hostsFile {
	f := hostsFile{byName: map[string][]netip.Addr{}, byReverse: map[string]string{}}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		addr, err := netip.ParseAddr(words[0])
		if err != nil || addr.Zone() != "" {
			continue
		}
		addr = addr.Unmap()
		loopback := addr.IsLoopback()
		if loopback {
			addr = Host
		}
		for i, name := range words[1:] {
			name = dns.Fqdn(strings.ToLower(name))
			if _, ok := dns.IsDomainName(name); !ok || dns.IsSubDomain("localhost.", name) {
				continue
			}
			f.byName[name] = append(f.byName[name], addr)
			if !loopback && i == 0 {
				f.byReverse[reverse(addr)] = name
			}
		}
	}
	return f
}

// resolvConf is what counts of resolv.conf(5).
type resolvConf struct {
	servers []string // with their ports
	search  []string // each with its dot
}

func parseResolvConf(text string) resolvConf {
	var c resolvConf
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0][0] == '#' || words[0][0] == ';' {
			continue
		}
		switch words[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(words[1]); err == nil && len(c.servers) < maxServers {
				c.servers = append(c.servers, net.JoinHostPort(a.String(), "53"))
			}
		case "search", "domain":
			c.search = nil // the last one counts
			for _, domain := range words[1:] {
				if domain = dns.Fqdn(domain); domain != "." {
					c.search = append(c.search, domain)
				}
			}
		}
	}
	if len(c.servers) == 0 {
		c.servers = []string{"127.0.0.1:53"} // as the C library does
	}
	return c
}
