# shellcheck shell=bash
# The cluster on this machine: real components in network, mount and process
# namespaces of their own. Sourced by hack/cluster.

# The state folder, by its real name: it is compared with what the kernel says.
STATE=$(realpath -m "$STATE")
# Two clusters (with two state folders) keep out of each other's cgroups.
CGROUP=belay-$(printf %s "$STATE" | sha256sum | cut -c 1-8)

CONTROL_PLANE=(etcd apiserver controller-manager scheduler)
NODE=(containerd kubelet kube-proxy)
PROMETHEUS=(prometheus pod-targets)

# --- The namespaces and their first process --------------------------------

# find_init sets INIT to the first process of the cluster, as the machine
# numbers it; fails when it does not run. The record holds what tells it from a
# later process that got the same number.
find_init() {
  local pid started boot
  INIT=''
  [[ -r $STATE/init.pid ]] && read -r pid started boot < "$STATE/init.pid" || return 1
  [[ $boot == "$(< /proc/sys/kernel/random/boot_id)" && $started == "$(start_time "$pid")" ]] || return 1
  INIT=$pid
}

require_running() {
  find_init || { say "the cluster is down; hack/cluster up starts it"; exit 3; }
}

# require_root: the local cluster makes namespaces and mounts.
require_root() {
  [[ $EUID -eq 0 ]] || cannot_run "the local cluster needs root"
}

start_namespaces() {
  local parent child
  case $STATE/ in
    # They are hidden by the cluster's own.
    /run/* | /var/*) die "BELAY_CLUSTER_DIR cannot be below /run or /var" ;;
  esac
  mkdir -p "$STATE"/{logs,pids,tmp,pki} "$STATE"/var/{lib/cni,log,tmp,cache}
  chmod 700 "$STATE"
  chmod 1777 "$STATE/var/tmp"
  ln -sfn /run "$STATE/var/run"
  # A copy: bash reads a script while it runs it, and the source may change.
  cp "$HACK/cluster.d/init" "$STATE/init"
  detached unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private \
    "$STATE/init" "$STATE" > "$STATE/logs/init.log" 2>&1 &
  parent=$!
  until_true 10 has_child "$parent" || { cat "$STATE/logs/init.log" >&2; cannot_run "cannot make namespaces"; }
  child=$(child_of "$parent")
  echo "$child $(start_time "$child") $(< /proc/sys/kernel/random/boot_id)" > "$STATE/init.pid"
  until_true 10 test -e "$STATE/init.ready" || {
    cat "$STATE/logs/init.log" >&2
    die "the first process of the cluster did not get ready"
  }
  find_init || die "the first process of the cluster has ended"
  # To find what is left of it, even after it has ended.
  readlink "/proc/$INIT/ns/"{net,pid,mnt} > "$STATE/namespaces"
}

child_of() {
  local children
  # That file has no end of line, which read takes for a failure.
  read -r children _ < "/proc/$1/task/$1/children" || [[ -n $children ]] && echo "$children"
}

# has_child PID: unshare has made its child, and the child is our script by now.
has_child() {
  local child
  child=$(child_of "$1" 2> /dev/null) && [[ -n $child ]] && grep -qaF "$STATE/init" "/proc/$child/cmdline" 2> /dev/null
}

# inside CMD...: runs CMD in all of the cluster's namespaces (absolute paths).
inside() {
  nsenter --target "$INIT" --mount --net --pid -- "$@"
}

make_cgroups() {
  local root=/sys/fs/cgroup folder name
  if [[ -f $root/cgroup.controllers ]]; then
    # Version 2: a controller must be on in the parent to be there in the child.
    for name in $(< $root/cgroup.controllers); do
      echo "+$name" > $root/cgroup.subtree_control 2> /dev/null || true
    done
    mkdir -p "$root/$CGROUP"
    return
  fi
  for folder in "$root"/*/; do
    [[ -e $folder/cgroup.procs ]] || continue
    mkdir -p "$folder$CGROUP"
    # A new cpuset is empty, and nothing can run in it.
    for name in cpuset.mems cpuset.cpus; do
      [[ ! -e $folder/$name ]] || cat "$folder/$name" > "$folder$CGROUP/$name"
    done
  done
}

# --- The components --------------------------------------------------------

# command_of COMPONENT sets COMMAND to what runs it.
command_of() {
  local kubernetes=$STATE/kubernetes
  # shellcheck disable=SC2054 # the commas belong to the flags
  case $1 in
    etcd) COMMAND=("$kubernetes" etcd --data-dir="$STATE/etcd") ;;
    apiserver)
      COMMAND=("$kubernetes" kube-apiserver --etcd-servers=http://127.0.0.1:2379
        --bind-address=0.0.0.0 --advertise-address="$NODE_IP" --secure-port=6443
        --tls-cert-file="$STATE/pki/apiserver.crt" --tls-private-key-file="$STATE/pki/apiserver.key"
        --service-account-issuer=https://kubernetes.default.svc
        --service-account-key-file="$STATE/pki/sa.pub" --service-account-signing-key-file="$STATE/pki/sa.key"
        --token-auth-file="$STATE/tokens.csv" --authorization-mode=Node,RBAC
        --service-cluster-ip-range=10.96.0.0/16 --allow-privileged
        # Else `kubectl logs` looks up the node's name.
        --kubelet-preferred-address-types=InternalIP
        --profiling=false)
      # Whether the server offers the resource, and the plugin that reads it: without
      # the resource the plugin would never be ready, and refuse every write.
      [[ ! -e $STATE/policies.off ]] || COMMAND+=(--disable-admission-plugins=MutatingAdmissionPolicy
        --runtime-config=admissionregistration.k8s.io/v1/mutatingadmissionpolicies=false,admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings=false)
      ;;
    controller-manager)
      COMMAND=("$kubernetes" kube-controller-manager --kubeconfig="$STATE/kubeconfig/controller-manager"
        # Each controller gets its own rights; without, it may create nothing.
        --use-service-account-credentials=true
        --service-account-private-key-file="$STATE/pki/sa.key" --root-ca-file="$STATE/pki/ca.crt"
        --leader-elect=false --bind-address=127.0.0.1 --profiling=false
        # By default it makes a folder below /usr.
        --flex-volume-plugin-dir=/var/lib/volume-plugins
        # Tests make thousands of objects.
        --kube-api-qps=500 --kube-api-burst=500
        --concurrent-deployment-syncs=20 --concurrent-replicaset-syncs=20)
      ;;
    scheduler)
      COMMAND=("$kubernetes" kube-scheduler --kubeconfig="$STATE/kubeconfig/scheduler"
        --leader-elect=false --bind-address=127.0.0.1 --profiling=false --kube-api-qps=500 --kube-api-burst=500)
      ;;
    containerd) COMMAND=(containerd --config "$STATE/containerd/config.toml") ;;
    kubelet)
      COMMAND=("$kubernetes" kubelet --config="$STATE/kubelet.yaml" --kubeconfig="$STATE/kubeconfig/kubelet"
        --root-dir="$STATE/kubelet" --cert-dir="$STATE/kubelet/pki" --node-ip="$NODE_IP" --hostname-override=node --v=1)
      ;;
    kube-proxy) COMMAND=("$kubernetes" kube-proxy --config="$STATE/kube-proxy.yaml") ;;
    prometheus)
      COMMAND=(prometheus --config.file="$STATE/prometheus.yaml" --storage.tsdb.path="$STATE/prometheus"
        --storage.tsdb.retention.time=6h --storage.tsdb.retention.size=500MB
        --web.listen-address=0.0.0.0:9090 --log.level=warn)
      ;;
    # Debian's Prometheus cannot discover pods.
    pod-targets)
      COMMAND=("$kubernetes" pod-targets --kubeconfig="$STATE/kubeconfig/admin" --out="$STATE/prometheus/pods.json")
      ;;
    contour | envoy) gateway_command "$1" ;;
    *) die "no component '$1'; there are ${CONTROL_PLANE[*]} ${NODE[*]} ${PROMETHEUS[*]} ${GATEWAY[*]}" ;;
  esac
}

# alive COMPONENT: it runs. Its number is one of the cluster's own namespace, so
# it can never mean a process of the machine; the first arguments tell whether
# it is the one we started.
alive() {
  local pid stat='' arguments proc=/proc/$INIT/root/proc
  [[ -r $STATE/pids/$1 ]] && read -r pid < "$STATE/pids/$1" || return 1
  # Not $(< …): with a file that is gone, bash 5.2 ends the whole script under `set -e`, whatever follows.
  { read -r stat < "$proc/$pid/stat"; } 2> /dev/null || return 1
  if [[ ${stat##*) } == Z* ]]; then
    # Killed, its first thread is a zombie while others still hold its ports.
    local threads=("$proc/$pid/task"/*)
    ((${#threads[@]} > 1))
    return
  fi
  command_of "$1"
  { mapfile -d '' -t arguments < "$proc/$pid/cmdline"; } 2> /dev/null || return 1
  [[ "${arguments[*]:0:2}" == "${COMMAND[*]:0:2}" ]]
}

dead() {
  ! alive "$1"
}

# run COMPONENT: starts it unless it runs.
run() {
  ! alive "$1" || return 0
  command_of "$1"
  # The inner shell is in the namespaces, so it sees the number to record; its
  # child goes to the first process of the namespaces when it ends.
  # shellcheck disable=SC2016 # expanded by the inner shell
  (detached nsenter --target "$INIT" --mount --net --pid -- \
    "$BASH" -c 'log=$1 file=$2; shift 2; setsid "$@" >> "$log" 2>&1 & echo $! > "$file"' \
    "$STATE/" "$STATE/logs/$1.log" "$STATE/pids/$1" "${COMMAND[@]}") >> "$STATE/logs/init.log" 2>&1 ||
    failed "$1" "could not be started"
  # Until then it is a shell that is about to become the component.
  until_true 3 alive "$1" || failed "$1" "has ended at once"
}

# end COMPONENT: kills it at once, as a crash would.
end() {
  local pid
  alive "$1" || return 0
  read -r pid < "$STATE/pids/$1"
  # shellcheck disable=SC2016 # expanded by the inner shell
  inside "$BASH" -c 'kill -KILL "$1"' - "$pid" || true
  until_true 20 dead "$1" || die "$1 does not end"
}

# failed COMPONENT WHAT: shows why and gives up.
failed() {
  tail -n 15 "$STATE/logs/$1.log" >&2 || true
  die "$1 $2 (hack/cluster logs $1)"
}

admin_kubectl() {
  nsenter --net="/proc/$INIT/ns/net" -- "$STATE/kubernetes" kubectl --kubeconfig="$STATE/kubeconfig/admin" "$@"
}

api_ready() {
  admin_kubectl get --raw=/readyz > /dev/null 2>&1
}

# settled COMPONENT SECONDS CMD...: waits for CMD to succeed while it runs.
settled() {
  local component=$1 deadline=$((SECONDS + $2))
  shift 2
  until "$@"; do
    alive "$component" || failed "$component" "has ended"
    [[ $SECONDS -lt $deadline ]] || failed "$component" "did not get ready in time"
    sleep 0.2
  done
}

containerd_ready() {
  inside ctr --connect-timeout 1s version > /dev/null 2>&1
}

# http_ok PORT PATH: answered with 200, on the node's loopback.
http_ok() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  nsenter --net="/proc/$INIT/ns/net" -- "$BASH" -c 'exec 3<> "/dev/tcp/127.0.0.1/$1" &&
    printf "GET %s HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n" "$2" >&3 && read -r -t 5 _ code _ <&3 && [[ $code == 200 ]]' \
    - "$@" 2> /dev/null
}

# etcd_ready: and the API server is through to it again, if it runs at all.
etcd_ready() {
  http_ok 2379 /health && { ! alive apiserver || api_ready; }
}

# kubelet_ready: the API alone may still tell what an earlier kubelet reported.
kubelet_ready() {
  # containerd says it is there before the kubelet may use it, and that one
  # then ends.
  run kubelet
  http_ok 10248 /healthz && { ! api_ready || node_ready; }
}

node_ready() {
  [[ $(admin_kubectl get node node --ignore-not-found \
    -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2> /dev/null) == True ]]
}

# ready COMPONENT: waits until it does its work, where that can be asked.
ready() {
  case $1 in
    etcd) settled etcd 90 etcd_ready ;;
    apiserver) settled apiserver 90 api_ready ;;
    containerd) settled containerd 60 containerd_ready ;;
    kubelet) until_true 120 kubelet_ready || failed kubelet "did not get ready in time" ;;
    prometheus) settled prometheus 60 http_ok 9090 /-/ready ;;
    contour | envoy) gateway_ready "$1" ;;
  esac
}

# --- Up --------------------------------------------------------------------

# runs LEVEL PROMETHEUS GATEWAY: all of that is up already.
runs() {
  local component wanted=("${CONTROL_PLANE[@]}")
  find_init || return 1
  [[ -e $STATE/up.control-plane ]] || return 1
  if [[ $1 == node ]]; then
    [[ -e $STATE/up.node ]] || return 1
    wanted+=("${NODE[@]}")
  fi
  if [[ -n $2 ]]; then
    [[ -e $STATE/up.prometheus ]] || return 1
    wanted+=("${PROMETHEUS[@]}")
  fi
  if [[ -n $3 ]]; then
    [[ -e $STATE/up.gateway ]] || return 1
    wanted+=("${GATEWAY[@]}")
  fi
  for component in "${wanted[@]}"; do
    alive "$component" || return 1
  done
}

local_up() {
  local level=$1 prometheus=$2 gateway=$3 began=$SECONDS
  # What ran before goes on running: a lower level takes nothing away.
  if runs "$level" "$prometheus" "$gateway"; then
    say "up already ($level)"
    return 0
  fi
  require_root
  lock "$STATE.lock" "the cluster"
  if runs "$level" "$prometheus" "$gateway"; then
    say "up already ($level)"
    return 0
  fi
  # A running cluster keeps the build that it was started with.
  prepare "$level" "$prometheus" "$gateway" "$(find_init && echo built)"
  began=$SECONDS
  if ! find_init; then
    [[ ! -e $STATE ]] || remove_all
    start_namespaces
    ln -sfn "$(kubernetes_binary)" "$STATE/kubernetes"
    mkdir -p "$STATE/bin"
    ln -sfn ../kubernetes "$STATE/bin/kubectl"
  fi
  [[ $level != node ]] || prepare_node
  up_control_plane
  [[ $level != node ]] || up_node
  [[ -z $prometheus ]] || up_prometheus
  [[ -z $gateway ]] || up_gateway
  say "up ($level) after $((SECONDS - began)) s"
}

# prepare LEVEL PROMETHEUS GATEWAY [BUILT]: what is done once for a machine.
prepare() {
  local packages=("${CONTROL_PLANE_PACKAGES[@]}")
  [[ $1 != node ]] || packages+=("${NODE_PACKAGES[@]}")
  [[ -z $2 ]] || packages+=("${PROMETHEUS_PACKAGES[@]}")
  [[ -z $3 ]] || packages+=("${GATEWAY_PACKAGES[@]}")
  install_packages "${packages[@]}"
  [[ -n ${4:-} ]] || build_kubernetes
  [[ -z $3 || (-n ${4:-} && -e $STATE/gateway) ]] || build_gateway
}

# local_build LEVEL PROMETHEUS GATEWAY
local_build() {
  require_root
  prepare "$@"
  "$HACK/images" pause > /dev/null
}

up_control_plane() {
  write_pki
  write_users
  run etcd
  run apiserver
  ready apiserver
  run controller-manager
  run scheduler
  # Pods are refused before these are there.
  settled controller-manager 60 default_objects_exist
  touch "$STATE/up.control-plane"
}

default_objects_exist() {
  [[ $(admin_kubectl -n default get serviceaccount/default configmap/kube-root-ca.crt -o name --ignore-not-found 2> /dev/null | wc -l) -eq 2 ]]
}

# prepare_node starts what does not need the API server, to lose no time.
prepare_node() {
  local pause
  make_cgroups
  write_containerd_config
  run containerd
  pause=$("$HACK/images" pause)
  ready containerd
  import_image "$pause"
}

up_node() {
  write_kubelet_config
  run kubelet
  run kube-proxy
  ready kubelet
  touch "$STATE/up.node"
}

up_prometheus() {
  write_prometheus_config
  run pod-targets
  run prometheus
  ready prometheus
  touch "$STATE/up.prometheus"
}

# --- Down ------------------------------------------------------------------

local_down() {
  require_root
  lock "$STATE.lock" "the cluster"
  if [[ ! -e $STATE ]] && [[ -z $(leftovers) ]]; then
    say "down already"
    return 0
  fi
  local namespaces=''
  [[ ! -r $STATE/namespaces ]] || namespaces=$(< "$STATE/namespaces")
  remove_all
  local left
  left=$(leftovers "$namespaces")
  if [[ -n $left ]]; then
    say "this is left of the cluster:"
    echo "$left" >&2
    exit 1
  fi
  say "down; nothing is left"
}

# remove_all takes everything away, whatever state it is in.
remove_all() {
  local pid mount
  # The whole process namespace ends with its first process. Where no record
  # was made, that one is known by its arguments: a path in the state folder.
  for pid in $(our_inits); do
    kill -KILL "$pid" 2> /dev/null || true
  done
  until_true 20 no_processes || say "the processes of the cluster do not end"
  while read -r mount; do
    umount --lazy "$mount" || true
  done < <(mounts | sort -r)
  until_true 10 remove_cgroups || true
  rm -rf --one-file-system "$STATE" || true
}

# our_inits prints the processes that are, or hold, the cluster's first one.
our_inits() {
  local file arguments
  for file in /proc/[0-9]*/cmdline; do
    # Of "unshare … STATE/init STATE" and "bash STATE/init STATE".
    mapfile -d '' -t arguments 2> /dev/null < "$file" || continue
    [[ ${#arguments[@]} -ge 3 && ${arguments[-1]} == "$STATE" && ${arguments[-2]} == "$STATE/init" ]] || continue
    file=${file%/cmdline}
    echo "${file##*/}"
  done
}

# processes_in NAMESPACE...: prints what lives in them.
processes_in() {
  local process namespace
  for process in /proc/[0-9]*; do
    for namespace in "$@"; do
      [[ $(readlink "$process/ns/${namespace%%:*}" 2> /dev/null) == "$namespace" ]] || continue
      # One that has ended and that its parent did not ask about is nothing.
      ! start_time "${process##*/}" > /dev/null || echo "${process##*/}"
      break
    done
  done
}

# no_processes: the process namespace is empty. What runs in the network
# namespace alone comes from `hack/cluster exec` and is not ours to kill.
no_processes() {
  [[ -z $(our_inits) ]] || return 1
  [[ ! -r $STATE/namespaces ]] || [[ -z $(processes_in "$(grep ^pid: "$STATE/namespaces")") ]]
}

# mounts prints what is mounted in the state folder, as the machine sees it.
mounts() {
  local point
  while read -r _ _ _ _ point _; do
    point=$(printf %b "$point")
    [[ $point != "$STATE"/* ]] || echo "$point"
  done < /proc/self/mountinfo
}

cgroups() {
  find /sys/fs/cgroup -depth -type d -path "*/$CGROUP*" 2> /dev/null || true
}

remove_cgroups() {
  local folder
  for folder in $(cgroups); do
    rmdir "$folder" 2> /dev/null || true
  done
  [[ -z $(cgroups) ]]
}

# leftovers [NAMESPACES] prints all that still belongs to the cluster.
leftovers() {
  local pid
  for pid in $(our_inits); do
    echo "process $pid: first process of the cluster"
  done
  # shellcheck disable=SC2086 # a list
  for pid in $([[ -z ${1:-} ]] || processes_in $1); do
    echo "process $pid in the cluster's namespaces: $(tr '\0' ' ' 2> /dev/null < "/proc/$pid/cmdline" | cut -c 1-120)"
  done
  mounts | sed 's/^/mount /'
  cgroups | sed 's/^/cgroup /'
  [[ ! -e $STATE ]] || echo "folder $STATE"
}

# --- The rest --------------------------------------------------------------

local_status() {
  local component pid level=none bad=0
  echo "source: local, in $STATE"
  if ! find_init; then
    echo "cluster: down"
    exit 3
  fi
  [[ ! -e $STATE/up.control-plane ]] || level=control-plane
  [[ ! -e $STATE/up.node ]] || level=node
  echo "level: $level"
  [[ ! -e $STATE/policies.off ]] || echo "policies: off"
  echo "namespaces: of process $INIT"
  for component in "${CONTROL_PLANE[@]}" "${NODE[@]}" "${PROMETHEUS[@]}" "${GATEWAY[@]}"; do
    [[ -e $STATE/pids/$component ]] || continue
    if alive "$component"; then
      read -r pid < "$STATE/pids/$component"
      echo "$component: running, process $(machine_pid "$pid")"
    else
      echo "$component: not running"
      bad=1
    fi
  done
  if api_ready; then
    echo "API server: ready, $API in the cluster's network namespace"
  else
    echo "API server: not ready"
    bad=1
  fi
  [[ ! -e $STATE/up.gateway ]] || echo "gateway: belay-test/edge, at $GATEWAY_ADDRESS in there"
  if [[ $level == node ]]; then
    if node_ready; then
      echo "node: ready"
    else
      echo "node: not ready"
      bad=1
    fi
  fi
  return "$bad"
}

# machine_pid PID: how the machine numbers a process of the cluster.
machine_pid() {
  local file
  while IFS=: read -r file _; do
    file=${file%/status}
    if [[ $(readlink "$file/ns/pid" 2> /dev/null) == "$(readlink "/proc/$INIT/ns/pid")" ]]; then
      echo "${file##*/}"
      return
    fi
  done < <(grep -Es "^NSpid:.*[[:space:]]$1\$" /proc/[0-9]*/status)
  echo "? ($1 in the cluster)"
}

local_kubeconfig() {
  require_running
  echo "$STATE/kubeconfig/$1"
}

local_exec() {
  require_running
  require_root
  export KUBECONFIG=${KUBECONFIG:-$STATE/kubeconfig/admin}
  # Last, so that a kubectl of the machine comes first.
  export PATH=$PATH:$STATE/bin
  # The network only: files, processes and the current folder stay the machine's.
  exec nsenter --net="/proc/$INIT/ns/net" -- "$@"
}

local_kubectl() {
  local_exec "$STATE/kubernetes" kubectl "$@"
}

local_load_image() {
  local tar
  require_running
  require_root
  alive containerd || die "load-image: the cluster has no node (hack/cluster up --level node)"
  for tar in "$@"; do
    import_image "$tar"
  done
}

# import_image TAR: by its contents, as the path may mean nothing in there.
import_image() {
  local output
  output=$(inside ctr --namespace k8s.io images import - < "$1" 2>&1) || die "cannot import $1: $output"
}

local_logs() {
  local log
  if [[ $# -gt 0 ]]; then
    [[ -r $STATE/logs/$1.log ]] || die "no log of '$1'; there are: $(cd "$STATE/logs" 2> /dev/null && echo *)"
    cat "$STATE/logs/$1.log"
    return
  fi
  for log in "$STATE"/logs/*.log; do
    [[ -s $log ]] || continue
    echo "== ${log##*/}"
    tail -n 20 "$log"
  done
}

# parts NAME prints the components that a name on the command line stands for.
parts() {
  case $1 in
    node) echo "${NODE[@]}" ;;
    *) command_of "$1" && echo "$1" ;;
  esac
}

local_stop() {
  command_on_parts stop_parts "$@"
}

local_start() {
  command_on_parts start_parts "$@"
}

local_restart() {
  command_on_parts restart_parts "$@"
}

# command_on_parts FUNCTION COMPONENT: calls it with the components of that name.
command_on_parts() {
  local names components
  [[ $# -eq 2 ]] || die "which component?"
  names=$(parts "$2")
  read -ra components <<< "$names"
  require_running
  require_root
  lock "$STATE.lock" "the cluster"
  "$1" "${components[@]}"
}

stop_parts() {
  local component
  for component in "$@"; do
    end "$component"
  done
}

start_parts() {
  local component
  for component in "$@"; do
    [[ -e $STATE/pids/$component ]] || die "$component is not part of the running cluster"
    run "$component"
    ready "$component"
  done
}

restart_parts() {
  stop_parts "$@"
  start_parts "$@"
}

# local_policies on|off: what the API server offers, as it is started from now on.
local_policies() {
  [[ ${1:-} == on || ${1:-} == off ]] || die "policies: on or off?"
  require_running
  require_root
  lock "$STATE.lock" "the cluster"
  if [[ $1 == off ]]; then
    touch "$STATE/policies.off"
  else
    rm -f "$STATE/policies.off"
  fi
  # Asked of the server itself: a command that was cut off may have left it as it was.
  if alive apiserver && api_ready && policies_are "$1"; then
    say "policies are $1 already"
    return
  fi
  restart_parts apiserver
  settled apiserver 60 policies_are "$1"
  say "policies are $1"
}

# policies_are on|off: as the API server says itself.
policies_are() {
  local offered=off
  ! admin_kubectl get --raw=/apis/admissionregistration.k8s.io/v1 2> /dev/null |
    grep -q '"mutatingadmissionpolicies"' || offered=on
  [[ $offered == "$1" ]]
}
