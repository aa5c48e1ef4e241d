module belay.dev/hack/routers

// Nothing is built from these: they carry the custom resources of routers.
go 1.26.0

require (
	github.com/traefik/traefik/v3 v3.7.13
	istio.io/api v1.31.4
)
