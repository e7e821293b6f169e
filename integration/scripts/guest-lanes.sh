# shellcheck shell=bash
# guest_lanes: the lanes that run in emulated machines.  Sourced, after lanes.sh.

guest=integration/guest
share=$top/target/guest-share
bookworm_v1='systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1'

# prepare_guests: has the images built while something else runs
prepare_guests() {
  (for suite in trixie bookworm; do nice -n 19 "$guest/guest-build" "$suite"; done) >"$logs/guest-images.log" 2>&1 </dev/null &
}

# What the machines are given: programs of ours, nothing else.  The crates' test programs come as CRATE-NAME.
stage() {
  rm -rf "$share"
  mkdir -p "$share"
  cp -L target/release/runtime target/release/shim target/x86_64-unknown-linux-gnu/release/{without,sender,probe,notifier} "$share/" &&
    cp "$(integration/scripts/suite-path)" "$share/suite" || return
  cargo test --quiet --no-run -p cgroup --message-format=json |
    jq -r 'select(.profile.test? and .executable) | "\(.target.kind[0]) \(.target.name) \(.executable)"' |
    while read -r kind name file; do
      if [[ $kind == test ]]; then cp "$file" "$share/cgroup-$name"; fi
    done
  strip "$share"/suite "$share"/cgroup-*
}

# tests LANE: the arguments that choose a lane's tests, from lanes.txt
tests() {
  local wanted=names
  [[ ${FULL-} ]] && wanted=full
  awk -v lane="[$1]" -v wanted="$wanted" '
    /^\[/ { on = $1 == lane; next }
    !on || /^#/ || !NF { next }
    $1 == "full" { $1 = ""; if (wanted == "full") print; next }
    wanted == "names" { print $1 }' "$guest/lanes.txt"
}

# in_guest MACHINE LANE VARIABLE=VALUE... [-- WRAPPER...]: the lane's tests there
in_guest() {
  local machine=$1 lane=$2 variables=() wrapper=() chosen
  shift 2
  while (($#)) && [[ $1 != -- ]]; do variables+=("$1") && shift; done
  (($#)) && shift && wrapper=("$@")
  chosen=$(tests "$lane")
  # Names of Docker's cases are also the beginnings of others.
  [[ ${FULL-} || $chosen != *docker::* ]] || chosen+=' --exact'
  local runtime=${GUEST_RUNTIME:-/usr/local/bin/runtime}
  # shellcheck disable=SC2086
  "$guest/guest-shell" run "$machine" --timeout "$guest_limit" -- env "RUNTIME=$runtime" PATIENCE=600 QUICK=1 RUST_BACKTRACE=0 \
    "${variables[@]}" "${wrapper[@]}" /usr/local/bin/suite --show-output --test-threads=2 $chosen
}

# crate_in_guest MACHINE: the tests of the crate cgroup against the kernel and the systemd there
crate_in_guest() {
  "$guest/guest-shell" run "$1" --timeout "$guest_limit" -- sh -c '
    code=0
    for program in /usr/local/bin/cgroup-*; do "$program" --show-output --test-threads=2 || code=1; done
    exit $code'
}

start() { # MACHINE, whose name ends in -v2 or -v1
  local kind=(--suite trixie)
  [[ $1 == *-v2 ]] || kind=(--suite bookworm --append "$bookworm_v1")
  "$guest/guest-shell" start "$1" --share "$share:/hydra:ro" "${kind[@]}" &&
    "$guest/guest-shell" run "$1" -- sh -c 'cp /hydra/* /usr/local/bin/; ln -sf shim /usr/local/bin/containerd-shim-hydra-v2'
}

# held FUNCTION MACHINE ARGUMENT...: once more in a new machine when the emulator, which is not what is tested, crashed
held() {
  local rc=0
  "$@" || rc=$?
  ((rc == 252)) || return "$rc"
  echo "QEMU crashed: the lane is run once more, in a new machine"
  start "$2" && "$@"
}

# guest_lane MACHINE LANE TITLE ARGUMENTS OF in_guest...: one of those asked for in LANES, or any
guest_lane() {
  local machine=$1 lane=$2 title=$3
  shift 3
  [[ ! ${LANES-} || " $LANES " == *" $lane "* ]] || return 0
  if ((SECONDS - guests_since > guests_may)); then
    skip "guest $title" "the machines have had their $((guests_may / 60)) minutes: this host is too busy"
    return
  fi
  if [[ $lane == *-crate ]]; then
    lane "guest $title" "$guest_limit" bash -c 'held crate_in_guest "$@"' - "$machine"
  else
    lane "guest $title" "$guest_limit" bash -c 'held in_guest "$@"' - "$machine" "$lane" "$@"
  fi
}


guest_lanes() {
  local m=hydra-$$ guest_limit=450 guests_since=$SECONDS guests_may=900
  [[ ${FULL-} ]] && guest_limit=14400 guests_may=86400
  stage || { tell 'guests' 0 1 0 0; return; }
  export -f in_guest crate_in_guest held tests start
  export guest guest_limit share bookworm_v1
  # shellcheck disable=SC2064
  trap "$guest/guest-shell stop $m-v2 >/dev/null 2>&1; $guest/guest-shell stop $m-v1 >/dev/null 2>&1" EXIT
  if [[ ! ${LANES-} || $LANES == *v2-* ]] && check 'guest trixie, cgroup v2: up' 600 bash -c "start $m-v2"; then
    guest_lane $m-v2 v2-crate 'v2: the crate cgroup'
    guest_lane $m-v2 v2-systemd 'v2: systemd driver' CGROUP_DRIVER=systemd
    guest_lane $m-v2 v2-apparmor 'v2: AppArmor' CGROUP_DRIVER=systemd
    guest_lane $m-v2 v2-cgroupfs 'v2: cgroupfs driver'
    guest_lane $m-v2 v2-rootless 'v2: rootless'
    guest_lane $m-v2 v2-old 'v2: no calls after 4.18' -- /usr/local/bin/without all
    guest_lane $m-v2 v2-docker 'v2: Docker 26'
    guest_lane $m-v2 v2-ctr 'v2: containerd 1.7, ctr'
    guest_lane $m-v2 v2-net 'v2: network limits'
    guest_lane $m-v2 v2-podman 'v2: Podman 5.4' CGROUP_DRIVER=systemd
    guest_lane $m-v2 v2-shim 'v2: our shim'
    [[ ${KEEP-} ]] || "$guest/guest-shell" stop "$m-v2"
  fi
  if [[ ! ${LANES-} || $LANES == *v1-* ]] && check 'guest bookworm, cgroup v1: up' 600 bash -c "start $m-v1"; then
    guest_lane $m-v1 v1-crate 'v1: the crate cgroup'
    guest_lane $m-v1 v1-systemd 'v1: systemd driver' CGROUP_DRIVER=systemd
    guest_lane $m-v1 v1-docker 'v1: Docker 20.10'
    [[ ${KEEP-} ]] || "$guest/guest-shell" stop "$m-v1"
  fi
}
