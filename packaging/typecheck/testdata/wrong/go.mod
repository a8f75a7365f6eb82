module example.org/wrong

go 1.26
