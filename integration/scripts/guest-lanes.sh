# shellcheck shell=bash
# guest_lanes: the lanes that run in emulated machines.  Sourced, after lanes.sh.

guest=integration/guest
share=$top/target/guest-share

# What the machines are given: static programs, nothing else.
stage() {
  rm -rf "$share"
  mkdir -p "$share"
  cp -L target/release/runtime target/release/shim target/x86_64-unknown-linux-gnu/release/without "$share/" &&
    cp "$(integration/scripts/suite-path)" "$share/suite" && strip "$share/suite"
}

# The names of a lane's tests.
subset() { [[ ${FULL-} ]] || awk -v lane="[$1]" '/^\[/ { on = $0 == lane; next } on && !/^#/ { print }' "$guest/subset.txt"; }

# A docker test's name is also the beginning of others: those are taken whole.
exact() { [[ $1 == docker ]] && echo --exact; }

# in_guest MACHINE SUBSET VARIABLE=VALUE... [-- WRAPPER...]
in_guest() {
  local machine=$1 set=$2 variables=() wrapper=()
  shift 2
  while (($#)) && [[ $1 != -- ]]; do variables+=("$1") && shift; done
  (($#)) && shift && wrapper=("$@")
  local runtime=${GUEST_RUNTIME:-/usr/local/bin/runtime}
  # shellcheck disable=SC2046
  "$guest/guest-shell" run "$machine" --timeout "$guest_limit" -- env RUNTIME=$runtime PATIENCE=600 QUICK=1 RUST_BACKTRACE=0 \
    "${variables[@]}" "${wrapper[@]}" /usr/local/bin/suite --show-output --test-threads=2 $(exact "$set") $(subset "$set")
}

start() { # MACHINE OPTION...
  local machine=$1
  shift
  "$guest/guest-shell" start "$machine" --share "$share:/hydra:ro" "$@" &&
    "$guest/guest-shell" run "$machine" -- sh -c 'cp /hydra/* /usr/local/bin/'
}

guest_lanes() {
  local name=hydra-$$ guest_limit=600
  [[ ${FULL-} ]] && guest_limit=14400
  stage || { tell 'guests' 0 1 0 0; return; }
  export -f in_guest subset exact start
  export guest guest_limit share
  # shellcheck disable=SC2064
  trap "$guest/guest-shell stop $name-v2 >/dev/null 2>&1; $guest/guest-shell stop $name-v1 >/dev/null 2>&1" EXIT
  if check 'guest: trixie, up' 1200 bash -c "start $name-v2 --suite trixie"; then
    lane 'guest: v2, systemd driver' $guest_limit bash -c "in_guest $name-v2 v2 CGROUP_DRIVER=systemd"
    lane 'guest: v2, cgroupfs driver' $guest_limit bash -c "in_guest $name-v2 v2"
    lane 'guest: v2, no calls after 4.18' $guest_limit bash -c "in_guest $name-v2 old -- /usr/local/bin/without new"
    lane 'guest: docker 26, compared with runc' $guest_limit bash -c "in_guest $name-v2 docker"
  fi
  [[ ${KEEP-} ]] || "$guest/guest-shell" stop "$name-v2"
  local v1='systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1'
  if check 'guest: bookworm, up' 1200 bash -c "start $name-v1 --suite bookworm --append '$v1'"; then
    lane 'guest: v1, systemd driver' $guest_limit bash -c "in_guest $name-v1 v1 CGROUP_DRIVER=systemd"
  fi
  [[ ${KEEP-} ]] || "$guest/guest-shell" stop "$name-v1"
}
