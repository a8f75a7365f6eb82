module github.com/covedesk/cove

go 1.26.0
