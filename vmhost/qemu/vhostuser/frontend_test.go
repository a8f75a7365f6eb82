//go:build linux

package vhostuser

import (
	"sync"
	"testing"
)

// idle is a device that takes every buffer and gives it back.
type idle struct{ d *Device }

func (i *idle) TurnLocked(n int) {
	r := &i.d.Rings[n]
	var c Chain
	for {
		ok, err := r.Pop(i.d.Mem, &c)
		if err != nil || !ok && !r.Ready() || !ok && !r.WantKicks() {
			return
		}
		if ok {
			r.Push(c.Head, c.InBytes)
			r.Notify()
		}
	}
}
func (*idle) StopLocked()  {}
func (*idle) ResetLocked() {}

// FuzzFrontEnd plays a front end that says anything, after a proper beginning.
func FuzzFrontEnd(f *testing.F) {
	f.Add(uint32(reqSetVringNum), make([]byte, 8))
	f.Add(uint32(reqGetConfig), make([]byte, 20))
	f.Add(uint32(reqSetVringAddr), make([]byte, 40))
	f.Fuzz(func(t *testing.T, request uint32, body []byte) {
		h := &idle{}
		d := New(new(sync.Mutex), h, 2, 1<<20, make([]byte, 8))
		h.d = d
		d.Mem = &Memory{holds: 1, regions: []region{{gpa: 0x1000, size: 1 << 16, uaddr: 0x10000, mem: make([]byte, 1<<16)}}}
		for i := range d.Rings {
			r := &d.Rings[i]
			r.num, r.addressed, r.enabled = 16, true, true
			r.descAddr, r.availAddr, r.usedAddr = 0x10000, 0x11000, 0x12000
			if err := r.translate(d.Mem); err != nil {
				t.Fatal(err)
			}
		}
		s := &session{d: d}
		s.handle(&message{request: request % 64, flags: flagNeedReply, body: body})
		for range 2 {
			d.Kicked(0)
			d.Kicked(1)
		}
	})
}
