//go:build darwin || windows

package netstack

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"

	"github.com/miekg/dns"
)

// SystemResolver asks the system's own resolver, which alone knows its split DNS: the resolvers of
// scutil --dns on macOS, the policy table of Windows. It has calls for the common kinds of records only; of
// others macOS' resolv.conf names a server, and Windows answers that they are not implemented.
func SystemResolver() Resolver {
	s := systemResolver{resolver: net.DefaultResolver}
	if runtime.GOOS == "darwin" {
		s.rest = &FileResolver{Servers: "/etc/resolv.conf"}
	}
	return s
}

type systemResolver struct {
	resolver *net.Resolver
	rest     Resolver
}

func (s systemResolver) Answer(ctx context.Context, question *dns.Msg, over string) (*dns.Msg, error) {
	q := question.Question[0]
	a := new(dns.Msg).SetReply(question)
	name := strings.TrimSuffix(q.Name, ".")
	head := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ownTTL}
	add := func(r dns.RR) { a.Answer = append(a.Answer, r) }
	var err error
	switch q.Qtype {
	case dns.TypeA, dns.TypeAAAA:
		// Both kinds are asked for: a name that has the other one only exists.
		all, e := s.resolver.LookupNetIP(ctx, "ip", name)
		for _, addr := range all {
			addr = addr.Unmap().WithZone("")
			if addr.IsLoopback() {
				addr = Host // by the hosts file: the guest's own loopback is another
			}
			if addr.Is4() == (q.Qtype == dns.TypeA) {
				add(record(q.Name, addr))
			}
		}
		err = e
	case dns.TypeCNAME:
		target, e := s.resolver.LookupCNAME(ctx, name)
		if e == nil && !strings.EqualFold(target, q.Name) {
			add(&dns.CNAME{Hdr: head, Target: dns.Fqdn(target)})
		}
		err = e
	case dns.TypePTR:
		if addr := dns.IsSubDomain("in-addr.arpa.", q.Name) || dns.IsSubDomain("ip6.arpa.", q.Name); !addr {
			return a, nil
		}
		address := fromReverse(q.Name)
		if address == "" {
			a.Rcode = dns.RcodeNameError
			return a, nil
		}
		all, e := s.resolver.LookupAddr(ctx, address)
		for _, host := range all {
			add(&dns.PTR{Hdr: head, Ptr: dns.Fqdn(host)})
		}
		err = e
	case dns.TypeTXT:
		all, e := s.resolver.LookupTXT(ctx, name)
		for _, text := range all {
			var pieces []string
			for len(text) > 255 {
				pieces, text = append(pieces, text[:255]), text[255:]
			}
			add(&dns.TXT{Hdr: head, Txt: append(pieces, text)})
		}
		err = e
	case dns.TypeMX:
		all, e := s.resolver.LookupMX(ctx, name)
		for _, m := range all {
			add(&dns.MX{Hdr: head, Preference: m.Pref, Mx: dns.Fqdn(m.Host)})
		}
		err = e
	case dns.TypeNS:
		all, e := s.resolver.LookupNS(ctx, name)
		for _, m := range all {
			add(&dns.NS{Hdr: head, Ns: dns.Fqdn(m.Host)})
		}
		err = e
	case dns.TypeSRV:
		_, all, e := s.resolver.LookupSRV(ctx, "", "", name)
		for _, m := range all {
			add(&dns.SRV{Hdr: head, Priority: m.Priority, Weight: m.Weight, Port: m.Port, Target: dns.Fqdn(m.Target)})
		}
		err = e
	default:
		if s.rest != nil {
			return s.rest.Answer(ctx, question, over)
		}
		a.Rcode = dns.RcodeNotImplemented
		return a, nil
	}
	var lookup *net.DNSError
	switch {
	case err == nil:
	case errors.As(err, &lookup) && lookup.IsNotFound:
		a.Rcode = dns.RcodeNameError
	default:
		a.Rcode = dns.RcodeServerFailure
	}
	return a, nil
}
