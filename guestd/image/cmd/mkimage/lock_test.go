package main

import (
	"context"
	"errors"
	"testing"
)

func TestOneMkimageWorksInACache(t *testing.T) {
	cache := t.TempDir()
	unlock, err := lockCache(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lockCache(ctx, cache); !errors.Is(err, context.Canceled) {
		t.Errorf("lockCache of a cache that is in use = %v; want that it waits until its context ends", err)
	}
	unlock()
	unlock, err = lockCache(ctx, cache)
	if err != nil {
		t.Fatalf("lockCache of a cache that is free = %v", err)
	}
	unlock()
}
