package main

// private does nothing: the user's profile folder is the user's alone.
func private() {}
