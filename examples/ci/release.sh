#!/bin/sh
# What a pipeline does to bring a change live: check the policy without a cluster, then release and wait.
#
#   examples/ci/release.sh ROLLOUT_FILE WORKLOAD CHANGE...
#   examples/ci/release.sh deploy/rollout.yaml web --image web=registry.example/web:1.2
#
# CHANGE is what `belay release` takes: --image or --env. The namespace is that of the kubeconfig's context.
# Exit codes: 0 promoted; 1 the file is wrong, something failed, or TIMEOUT passed (the release goes on);
# 4 rolled back, aborted or superseded; 64 wrong usage; 130 interrupted (the release goes on).
set -eu
if [ $# -lt 3 ]; then
  echo "usage: $0 ROLLOUT_FILE WORKLOAD CHANGE..." >&2
  exit 64
fi
file=$1
workload=$2
shift 2

belay lint "$file"
code=0
belay release "$workload" "$@" --wait --timeout "${TIMEOUT:-30m}" || code=$?
if [ "$code" -eq 4 ]; then
  # The evidence, into the log of the pipeline.
  belay explain "$workload" || true
fi
exit "$code"
