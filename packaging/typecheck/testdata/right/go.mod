module example.org/right

go 1.26
