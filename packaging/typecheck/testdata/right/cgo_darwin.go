package sample

// #include <stdio.h>
import "C"

func use() { T{}.Here(); C.puts(nil) }
