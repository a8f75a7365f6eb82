package main

// onResize does nothing: a console tells its size only to who asks.
func onResize(func()) (stop func()) { return func() {} }
