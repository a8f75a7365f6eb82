package netstack

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// Bounds of the guest's questions.
const (
	maxQuestions    = 512 // being answered at once; more are not answered, and asked again
	maxDNSConns     = 64  // over TCP
	dnsIdle         = 10 * time.Second
	answerPatience  = 12 * time.Second
	maxQuestionSize = 64 << 10
)

// ownZone is ours alone: nothing below it is ever asked of the host's resolver.
const ownZone = "docker.internal."

// names are the names of our own.
var names = map[string]netip.Addr{"host." + ownZone: Host, "gateway." + ownZone: Gateway}

// Resolver answers a question as the host would. The answer may be for another ID; a failure is an
// answer too (SERVFAIL), an error means that there is none. over is "udp" or "tcp", as the guest asked.
type Resolver interface {
	Answer(ctx context.Context, question *dns.Msg, over string) (*dns.Msg, error)
}

// serveDNS serves names on the gateway's port 53, UDP and TCP.
func (n *Network) serveDNS(r Resolver) error {
	at := tcpip.FullAddress{NIC: nic, Addr: to4(Gateway), Port: 53}
	packets, err := gonet.DialUDP(n.stack, &at, nil, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	listener, err := gonet.ListenTCP(n.stack, at, ipv4.ProtocolNumber)
	if err != nil {
		packets.Close()
		return err
	}
	slots := make(chan struct{}, maxQuestions)
	handler := func(over string) dns.HandlerFunc {
		return func(w dns.ResponseWriter, asked *dns.Msg) {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			default:
				return
			}
			ctx, cancel := context.WithTimeout(n.ctx, answerPatience)
			defer cancel()
			w.WriteMsg(n.answer(ctx, r, asked, over))
		}
	}
	for _, s := range []*dns.Server{
		{PacketConn: packets, Handler: handler("udp"), UDPSize: 4096},
		{Listener: netutil.LimitListener(listener, maxDNSConns), Handler: handler("tcp"), ReadTimeout: dnsIdle, IdleTimeout: func() time.Duration { return dnsIdle }, MaxTCPQueries: -1},
	} {
		n.wg.Go(func() {
			if err := s.ActivateAndServe(); err != nil && n.ctx.Err() == nil {
				n.log.Error("dns", "err", err)
			}
		})
		n.wg.Go(func() {
			<-n.ctx.Done()
			if s.Listener != nil {
				listener.Shutdown()
				listener.Close()
			} else {
				packets.Close()
			}
		})
	}
	return nil
}

// answer answers one question of the guest's.
func (n *Network) answer(ctx context.Context, r Resolver, asked *dns.Msg, over string) *dns.Msg {
	failed := func(code int) *dns.Msg { return new(dns.Msg).SetRcode(asked, code) }
	if asked.Opcode != dns.OpcodeQuery {
		return failed(dns.RcodeNotImplemented)
	}
	if len(asked.Question) != 1 {
		return failed(dns.RcodeFormatError)
	}
	if own := ownAnswer(asked); own != nil {
		return own
	}
	got, err := r.Answer(ctx, asked, over)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			n.log.Debug("dns: no answer", "name", asked.Question[0].Name, "err", err)
		}
		return failed(dns.RcodeServerFailure)
	}
	out := got.Copy()
	out.Id, out.Response, out.RecursionAvailable = asked.Id, true, true
	out.Question = asked.Question // with the guest's own capitals
	out.Compress = true
	if over == "udp" {
		size := dns.MinMsgSize
		if e := asked.IsEdns0(); e != nil {
			size = max(size, int(e.UDPSize()))
		}
		out.Truncate(size)
	}
	return out
}

// ownAnswer answers what is ours; nil means that it is not.
func ownAnswer(asked *dns.Msg) *dns.Msg {
	q := asked.Question[0]
	name := strings.ToLower(q.Name)
	a := new(dns.Msg).SetReply(asked)
	a.RecursionAvailable = true
	switch {
	case dns.IsSubDomain(ownZone, name):
		addr, is := names[name]
		if !is && name != ownZone {
			a.Rcode = dns.RcodeNameError
		}
		if is && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY) {
			a.Answer = append(a.Answer, record(q.Name, addr))
		}
	case dns.IsSubDomain("localhost.", name): // RFC 6761, 6.3
		switch q.Qtype {
		case dns.TypeA:
			a.Answer = append(a.Answer, record(q.Name, netip.AddrFrom4([4]byte{127, 0, 0, 1})))
		case dns.TypeAAAA:
			a.Answer = append(a.Answer, record(q.Name, netip.IPv6Loopback()))
		}
	case dns.IsSubDomain(reverseZone, name):
		a.Rcode = dns.RcodeNameError
		for own, addr := range names {
			if reverse, _ := dns.ReverseAddr(addr.String()); reverse == name {
				a.Rcode = dns.RcodeSuccess
				if q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY {
					a.Answer = append(a.Answer, &dns.PTR{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ownTTL}, Ptr: own})
				}
			}
		}
	default:
		return nil
	}
	return a
}

// reverseZone is the zone of our subnet's addresses.
var reverseZone = func() string {
	_, zone, _ := strings.Cut(reverse(Subnet.Addr()), ".")
	return zone
}()

func reverse(a netip.Addr) string {
	name, err := dns.ReverseAddr(a.String())
	if err != nil {
		panic(err) // an address
	}
	return name
}

// ownTTL is how long, in seconds, an answer of ours may be kept: it may change with the host's hosts file.
const ownTTL = 5

// record is an address as a record.
func record(name string, a netip.Addr) dns.RR {
	h := dns.RR_Header{Name: name, Class: dns.ClassINET, Ttl: ownTTL}
	if a.Is4() {
		h.Rrtype = dns.TypeA
		return &dns.A{Hdr: h, A: a.AsSlice()}
	}
	h.Rrtype = dns.TypeAAAA
	return &dns.AAAA{Hdr: h, AAAA: a.AsSlice()}
}
