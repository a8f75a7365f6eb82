package sample

// #include <stdio.h>
import "C"

func use() { T{}.Missing(); C.puts(nil) }
