package dockerapi

import (
	"strings"
	"testing"
)

func TestClassify(t *testing.T) {
	passive, active := Call{}, Call{Active: true}
	stream := Call{Active: true, Stream: true}
	for _, row := range []struct {
		call string
		want Call
	}{
		{"GET /_ping", passive},
		{"POST /swarm/init", Call{Active: true, Swarm: true}},
		{"POST /swarm/join", Call{Active: true, Swarm: true}},
		{"POST /swarm/leave", active},
		{"GET /swarm/init", passive},
		{"HEAD /_ping", passive},
		{"GET /version", passive},
		{"GET /info", passive},
		{"GET /events", passive},
		{"GET /system/df", passive},
		{"GET /containers/json", passive},
		{"GET /containers/c/json", passive},
		{"GET /containers/logs/json", passive},
		{"GET /containers/c/logs", active},
		{"GET /containers/c/stats", active},
		{"GET /containers/c/top", active},
		{"GET /containers/c/changes", active},
		{"GET /containers/c/export", active},
		{"GET /containers/c/archive", active},
		{"HEAD /containers/c/archive", active},
		{"PUT /containers/c/archive", active},
		{"GET /containers/c/attach/ws", stream},
		{"POST /containers/create", Call{Active: true, Mounts: ContainerMounts}},
		{"POST /containers/c/start", active},
		{"POST /containers/c/wait", active},
		{"POST /containers/c/resize", active},
		{"POST /containers/c/update", active},
		{"POST /containers/c/attach", stream},
		{"POST /containers/attach", active},
		{"DELETE /containers/c", active},
		{"POST /containers/c/exec", active},
		{"POST /exec/e/start", stream},
		{"POST /exec/e/resize", active},
		{"GET /exec/e/json", passive},
		{"GET /images/json", passive},
		{"GET /images/docker.io/library/get/json", passive},
		{"GET /images/localhost:5000/a/b/get", active},
		{"GET /images/get", active},
		{"GET /images/search", active},
		{"POST /images/create", active},
		{"POST /images/load", active},
		{"GET /distribution/alpine/json", active},
		{"POST /build", active},
		{"POST /session", stream},
		{"POST /grpc", stream},
		{"GET /session", passive},
		{"GET /networks", passive},
		{"GET /networks/stats", passive},
		{"POST /networks/create", active},
		{"GET /volumes", passive},
		{"GET /volumes/logs", passive},
		{"POST /volumes/create", Call{Active: true, Mounts: VolumeMounts}},
		{"DELETE /volumes/v", active},
		{"POST /volumes/prune", active},
		{"GET /services", passive},
		{"GET /services/s/logs", active},
		{"POST /services/create", Call{Active: true, Mounts: ServiceMounts}},
		{"POST /services/s/update", Call{Active: true, Mounts: ServiceMounts}},
		{"DELETE /services/s", active},
		{"GET /tasks/t/logs", active},
		{"GET /nodes", passive},

		{"POST /auth", active},
		{"GET /", passive},
		{"OPTIONS /info", active},
	} {
		method, path, _ := strings.Cut(row.call, " ")
		for _, prefix := range []string{"", "/v1.47", "/v1.24", "/v1.47.0"} {
			if got := Classify(method, prefix+path); got != row.want {
				t.Errorf("Classify(%s, %s) = %+v; want %+v", method, prefix+path, got, row.want)
			}
		}
	}
}
