# shellcheck shell=bash
# Clusters that are not made here: one that was given (BELAY_KUBECONFIG), or one
# that kind runs in Docker. Sourced by hack/cluster.

KIND_NAME=belay
EXTERNAL=$CACHE/external

any_kubectl() {
  command -v kubectl || { build_kubernetes && mkdir -p "$EXTERNAL/bin" &&
    ln -sfn "$(kubernetes_binary)" "$EXTERNAL/bin/kubectl" && echo "$EXTERNAL/bin/kubectl"; }
}

# external_kubeconfig ADMIN_KUBECONFIG USER: other users are impersonated.
external_kubeconfig() {
  local out program name groups=()
  [[ -r $1 ]] || die "cannot read the kubeconfig $1"
  if [[ $2 == admin ]]; then
    realpath "$1"
    return
  fi
  name=$2
  case $2 in
    alice | gitops) groups=(system:masters) ;;
    # The API server adds the groups of a service account by itself.
    belay) name=system:serviceaccount:belay-system:belay ;;
  esac
  program=$(any_kubectl)
  mkdir -p "$EXTERNAL"
  out=$EXTERNAL/$2-$(realpath "$1" | sha256sum | cut -c 1-8)
  (
    umask 077
    "$program" --kubeconfig "$1" config view --minify --flatten --raw > "$out.tmp"
    python3 - "$out.tmp" "$name" "${groups[@]}" << 'END'
import sys

# The file has one user; what it is impersonating goes beside its credentials.
path, name, groups = sys.argv[1], sys.argv[2], sys.argv[3:]
lines = open(path).read().split("\n")
at = max(i for i, line in enumerate(lines) if line.startswith("  user:"))
lines[at] = "  user:"
added = [f"    as: {name}"]
if groups:
    added += ["    as-groups:"] + [f"    - {group}" for group in groups]
lines[at + 1:at + 1] = added
open(path, "w").write("\n".join(lines))
END
    mv "$out.tmp" "$out"
  )
  echo "$out"
}

external_status() {
  local program
  program=$(any_kubectl)
  if "$program" --kubeconfig "$1" get --raw=/readyz > /dev/null 2>&1; then
    echo "API server: ready"
  else
    echo "API server: not reachable"
    exit 3
  fi
}

# --- given -----------------------------------------------------------------

given_up() {
  [[ -r $BELAY_KUBECONFIG ]] || die "cannot read BELAY_KUBECONFIG ($BELAY_KUBECONFIG)"
  external_status "$BELAY_KUBECONFIG" >&2
  [[ -z $2 ]] || say "the given cluster is used as it is: no Prometheus is added"
  [[ -z $3 ]] || say "the given cluster is used as it is: no gateway is added"
}

given_down() {
  say "the given cluster is not ours to take down"
}

given_status() {
  echo "source: given, BELAY_KUBECONFIG=$BELAY_KUBECONFIG"
  external_status "$BELAY_KUBECONFIG"
}

given_kubeconfig() {
  external_kubeconfig "$BELAY_KUBECONFIG" "$1"
}

given_exec() {
  export KUBECONFIG=${KUBECONFIG:-$(realpath "$BELAY_KUBECONFIG")}
  exec "$@"
}

given_kubectl() {
  local program
  program=$(any_kubectl)
  given_exec "$program" "$@"
}

given_load_image() {
  say "not loaded: the images of a given cluster must be in a registry that it reaches"
}

# --- kind ------------------------------------------------------------------

kind_is_up() {
  kind get clusters 2> /dev/null | grep -qxF "$KIND_NAME"
}

kind_config() {
  echo "$EXTERNAL/kind"
}

kind_up() {
  lock "$EXTERNAL/kind.lock" "the kind cluster"
  if ! kind_is_up; then
    kind create cluster --name "$KIND_NAME" --kubeconfig "$(kind_config)" --wait 180s >&2
  elif [[ ! -r $(kind_config) ]]; then
    kind export kubeconfig --name "$KIND_NAME" --kubeconfig "$(kind_config)" >&2
  fi
  [[ -z $2 ]] || say "kind has no Prometheus added"
  [[ -z $3 ]] || say "kind has no gateway added"
}

kind_down() {
  kind delete cluster --name "$KIND_NAME" --kubeconfig "$(kind_config)" >&2
  rm -f "$(kind_config)"
}

kind_status() {
  echo "source: kind, cluster $KIND_NAME"
  if ! kind_is_up; then
    echo "cluster: down"
    exit 3
  fi
  external_status "$(kind_config)"
}

kind_kubeconfig() {
  external_kubeconfig "$(kind_config)" "$1"
}

kind_exec() {
  [[ -r $(kind_config) ]] || { say "the cluster is down; hack/cluster up starts it"; exit 3; }
  export KUBECONFIG=${KUBECONFIG:-$(kind_config)}
  exec "$@"
}

kind_kubectl() {
  local program
  program=$(any_kubectl)
  kind_exec "$program" "$@"
}

kind_load_image() {
  local tar
  for tar in "$@"; do
    kind load image-archive --name "$KIND_NAME" "$tar" >&2
  done
}
