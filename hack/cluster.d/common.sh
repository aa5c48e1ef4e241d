# shellcheck shell=bash
# Small things that the other parts use. Sourced by hack/cluster.

say() {
  echo "cluster: $*" >&2
}

die() {
  say "$*"
  exit 1
}

# cannot_run REASON: this machine lacks what the cluster needs (tests skip).
cannot_run() {
  say "cannot run here: $*"
  exit 77
}

# lock FILE WHAT: holds FILE until this process ends; waits for who holds it.
lock() {
  local fd
  mkdir -p "$(dirname "$1")"
  exec {fd}> "$1"
  if ! flock --nonblock "$fd"; then
    say "another process is busy with $2; waiting for it"
    flock "$fd"
  fi
}

# close_files closes what this shell inherited but the first three: a lock, or
# the pipe that make or a test waits on. A process that lives on must not hold
# them. Call it in a subshell.
close_files() {
  local fd
  for fd in "/proc/$BASHPID/fd/"*; do
    fd=${fd##*/}
    [[ $fd -le 2 ]] || eval "exec $fd>&-"
  done
}

# detached CMD...: turns this shell (so: call it in a subshell) into CMD that
# outlives us: a session of its own, no file of ours, a small clean environment.
detached() {
  close_files
  cd /
  exec setsid env -i PATH="$PATH" HOME="$STATE" TMPDIR="$STATE/tmp" LANG=C.UTF-8 "$@" < /dev/null
}

# start_time PID: when a process started, in ticks since boot. A number that is
# used again for another process has another start.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2> /dev/null) || return 1
  stat=${stat##*) } # the name, in parentheses, may contain anything
  read -ra stat <<< "$stat"
  [[ ${stat[0]} != Z ]] || return 1
  echo "${stat[19]}"
}

# until_true SECONDS CMD...: tries CMD until it succeeds.
until_true() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [[ $SECONDS -lt $deadline ]] || return 1
    sleep 0.1
  done
}
