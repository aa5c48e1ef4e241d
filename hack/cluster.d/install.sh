# shellcheck shell=bash disable=SC2034 # the lists are for local.sh
# What the local cluster needs on the machine. Sourced by hack/cluster.

# Debian package and a file or command that shows it is there.
CONTROL_PLANE_PACKAGES=(
  iproute2:ip
  util-linux:nsenter
)
NODE_PACKAGES=(
  containerd:containerd
  containerd:ctr
  runc:runc
  containernetworking-plugins:/usr/lib/cni/bridge
  iptables:iptables
  nftables:nft
  conntrack:conntrack
)
PROMETHEUS_PACKAGES=(prometheus:prometheus)

# install_packages PACKAGE:COMMAND...: installs what is not there.
install_packages() {
  local entry missing=()
  for entry in "$@"; do
    command -v "${entry#*:}" > /dev/null || [[ " ${missing[*]} " == *" ${entry%%:*} "* ]] ||
      missing+=("${entry%%:*}")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  command -v apt-get > /dev/null || cannot_run "no apt-get to install ${missing[*]}"
  say "installing Debian packages: ${missing[*]}"
  mkdir -p "$CACHE"
  (
    # No service may start: not now (policy-rc.d), not at the next boot.
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
      trap 'rm -f /usr/sbin/policy-rc.d' EXIT
      printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
      chmod +x /usr/sbin/policy-rc.d
    fi
    # The package lists may be missing or old: fetched only if it fails without.
    apt_install "${missing[@]}" ||
      { apt-get -q update && apt_install "${missing[@]}"; }
    # Both ways of starting at boot, whichever is there.
    for entry in containerd prometheus; do
      if [[ " ${missing[*]} " == *" $entry "* ]]; then
        ! command -v systemctl || systemctl disable "$entry" || true
        [[ ! -e /etc/init.d/$entry ]] || update-rc.d "$entry" disable || true
      fi
    done
  ) > "$CACHE/apt.log" 2>&1 < /dev/null || {
    tail -n 20 "$CACHE/apt.log" >&2
    die "cannot install the packages (whole log: $CACHE/apt.log)"
  }
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 install --no-install-recommends "$@"
}

# kubernetes_binary prints where the build of the present sources belongs.
kubernetes_binary() {
  local sum
  sum=$(cat "$HACK"/kubernetes/{go.mod,go.sum,*.go} | sha256sum)
  echo "$CACHE/kubernetes-${sum:0:16}"
}

# build_kubernetes builds the one program that holds all components.
build_kubernetes() {
  [[ -x $(kubernetes_binary) ]] || (
    lock "$CACHE/kubernetes.lock" "the build of Kubernetes"
    build_kubernetes_locked
  )
}

build_kubernetes_locked() {
  local binary log version
  binary=$(kubernetes_binary)
  [[ ! -x $binary ]] || return 0
  command -v go > /dev/null || cannot_run "Go is needed to build Kubernetes"
  version=$(sed -n 's|^[[:space:]]*k8s.io/kubernetes v||p' "$HACK/kubernetes/go.mod")
  say "building Kubernetes $version from Go modules: about 13 minutes the first time, then cached"
  log=$CACHE/kubernetes-build.log
  watched "$log" go_build "$binary.tmp" "$version" || build_failed Kubernetes "$log"
  mv "$binary.tmp" "$binary"
}

go_build() {
  local stamp=k8s.io/component-base/version
  cd "$HACK/kubernetes" || exit
  # kubectl and the version endpoint refuse to work with an empty version.
  CGO_ENABLED=0 exec go build -v -buildvcs=false -tags providerless,netgo -o "$1" -ldflags \
    "-s -w -X $stamp.gitVersion=v$2 -X $stamp.gitMajor=${2%%.*} -X $stamp.gitMinor=$(cut -d. -f2 <<< "$2")" .
}

# build_failed WHAT LOG: shows why and gives up.
build_failed() {
  grep -v '^go: downloading' "$2" | tail -n 20 >&2
  die "cannot build $1 (whole log: $2)"
}

# watched LOG FUNCTION ARG...: builds in the background and reports every 15 s.
# The function ends in an exec, so that what is killed is the build.
watched() {
  local log=$1 pid began=$SECONDS packages
  shift
  (
    close_files
    "$@"
  ) > "$log" 2>&1 < /dev/null &
  pid=$!
  # A background job does not get the terminal's interrupt.
  trap 'kill "$pid" 2> /dev/null || true' EXIT
  while kill -0 "$pid" 2> /dev/null; do
    sleep 1
    if (((SECONDS - began) % 15 == 0)); then
      packages=$(grep -vc '^go: ' "$log") || true
      say "… $packages packages, $(((SECONDS - began) / 60))m$(((SECONDS - began) % 60))s"
    fi
  done
  trap - EXIT
  wait "$pid"
}
