package vmtest

import (
	"testing"

	"github.com/covedesk/cove/proxy/transport"
	"github.com/covedesk/cove/vmhost"
)

// balloon takes half of a guest's memory and gives it again. A machine that cannot is passed over.
func balloon(t *testing.T, open func(*testing.T) (vmhost.Driver, vmhost.Spec)) {
	m := start(t, open)
	b, can := m.Machine.(vmhost.Balloon)
	if !can {
		t.Skip("this machine has no balloon")
	}
	ctx := within(t)
	m.hello()
	m.await("Ready", ready)
	client, _, err := transport.Choose(ctx, m.Links(), m.secret)
	if err != nil {
		t.Fatal("Choose:", err)
	}
	stands := func() vmhost.Memory {
		t.Helper()
		mem, err := b.Memory(ctx)
		if err != nil {
			t.Fatal("Memory:", err)
		}
		return mem
	}
	whole := m.spec.Memory
	if at := stands(); at.Size != whole || at.Granted != whole || at.Resident <= 0 || at.Resident > whole {
		t.Errorf("Memory = %+v at the start; want all %d granted, and some of it resident", at, whole)
	}
	for _, bytes := range []int64{-1, 0, vmhost.LeastMemory - 1, whole + 1<<20} {
		if err := b.SetMemory(ctx, bytes); err == nil {
			t.Errorf("SetMemory(%d) = nil of %d; want an error", bytes, whole)
		}
	}
	for _, bytes := range []int64{whole / 2, whole} {
		if err := b.SetMemory(ctx, bytes); err != nil {
			t.Fatalf("SetMemory(%d) = %v", bytes, err)
		}
		m.eventually("the guest follows the balloon", func() bool { return stands().Granted == bytes })
		if err := transport.SelfTest(ctx, client); err != nil {
			t.Errorf("with %d bytes of memory the guest does not answer: %v", bytes, err)
		}
		if at := stands(); at.Resident > bytes {
			t.Errorf("Memory = %+v; want no more resident than granted", at)
		}
	}
}
