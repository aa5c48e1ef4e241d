module belay.dev/hack/sample

go 1.26.0
