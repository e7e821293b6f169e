# shellcheck shell=bash
# Shared by guest-build, guest-run and guest-shell.
#
# A machine lives in a folder of its own ($run): bell.in/bell.out (FIFOs to the guest's agent),
# mon.in/mon.out (QEMU's monitor), console.log, qemu.pid, and ctl/, which the guest mounts over 9p:
# commands go in as ctl/ID.cmd, their output and status come back as ctl/ID.{out,err,rc}.
#
# Booting an emulated machine takes long, so the first use of a configuration boots it once, starts
# docker and saves memory, devices and disk in the cache (warm-*); later uses map that memory
# copy-on-write and go on from there.

: "${here:?}" # the scripts' folder, set by the caller
GUEST_CACHE=${GUEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hydra-guest}
GUEST_SUITE=${GUEST_SUITE:-trixie}
GUEST_MEM=${GUEST_MEM:-3072} # MiB
GUEST_SMP=${GUEST_SMP:-2}
# Without fast string instructions the kernel clears and copies pages in unrolled loops: emulated byte by byte they cost a seventh
# of everything.
GUEST_CPU=${GUEST_CPU:-max,la57=off,erms=off,fsrm=off}
slots=6 # 9p folders a machine can be given; part of the saved state, so always present
harness_failed=253 emulator_died=252 timed_out=124
keeper=(setpriv --pdeathsig KILL) # a guest ends with its caller; guest-shell takes setsid

die() { echo "${0##*/}: $*" >&2; exit "$harness_failed"; }
short() { sha256sum | cut -c1-8; }
bell() { echo "$*" >"$run/bell.in"; }
alive() { kill -0 "$(<"$run/qemu.pid")" 2>/dev/null; }
# QEMU removes this file of its own in every end but that by a signal: not after a panic, nor when told to stop. A panic over a
# breakpoint that nobody set is the emulator's too: one processor patches code (static keys) that the other has translated already.
died() { ! alive && { [[ -e $run/qemu.lives ]] || grep -qa 'Oops: int3' "$run/console.log"; }; }

# With norandmaps a program lies where it lay before, and what of it is translated already is found again: a process starts four
# times as fast, a Go program three times.
#
# start_qemu DISK FORMAT SNAPSHOT(on|off) MEMORY-BACKEND [more QEMU options]
# Folders to share stand in the array $shares, each DIR:GUESTPATH[:ro].
start_qemu() {
  local disk=$1 format=$2 snapshot=$3 memory=$4 i s dir dest ro args=()
  shift 4
  mkdir -p "$run/ctl" "$run/empty"
  : >"$run/ctl/mounts"
  mkfifo "$run"/{bell,mon}.{in,out}
  for ((i = 0; i < slots; i++)); do
    dir=$run/empty ro=
    if [[ ${shares[i]-} ]]; then
      IFS=: read -r dir dest ro <<<"${shares[i]}"
      [[ -d $dir && $dest == /* ]] || die "--share wants DIR:/PATH[:ro], got ${shares[i]}"
      echo "share$i ${ro:-rw} $dest" >>"$run/ctl/mounts"
    fi
    args+=(-fsdev "local,id=f$i,path=${dir//,/,,},security_model=none,multidevs=remap${ro:+,readonly=on}"
      -device "virtio-9p-pci,fsdev=f$i,mount_tag=share$i")
  done
  ((${#shares[@]} <= slots)) || die "at most $slots shared folders"
  "${keeper[@]}" qemu-system-x86_64 -pidfile "$run/qemu.lives" -nodefaults -no-user-config -display none -no-reboot \
    -accel tcg,thread=multi,tb-size=512 -machine pc,memory-backend=ram,graphics=off -cpu "$GUEST_CPU" \
    -smp "$GUEST_SMP" -m "$GUEST_MEM" -object "memory-backend-$memory,id=ram,size=${GUEST_MEM}M" \
    -kernel "$image/vmlinuz" -initrd "$image/initrd" \
    -append "root=/dev/vda rw console=ttyS0 quiet panic=-1 mitigations=off nokaslr norandmaps audit=0 tsc=reliable \
no_timer_check random.trust_cpu=on systemd.show_status=0 net.ifnames=0 apparmor=1 security=apparmor $append" \
    -drive "if=none,id=hd,file=$disk,format=$format,snapshot=$snapshot,cache=unsafe,discard=unmap" \
    -device virtio-blk-pci,drive=hd -device virtio-rng-pci \
    -chardev "pipe,id=bell,path=$run/bell" -device virtio-serial-pci \
    -device virtserialport,chardev=bell,name=guest.bell \
    -chardev "pipe,id=mon,path=$run/mon" -mon chardev=mon,mode=readline \
    -serial "file:$run/console.log" \
    -fsdev "local,id=ctl,path=$run/ctl,security_model=none" -device virtio-9p-pci,fsdev=ctl,mount_tag=ctl \
    "${args[@]}" "$@" </dev/null >"$run/qemu.log" 2>&1 7>&- 8>&- 9>&- &
  echo $! >"$run/qemu.pid"
  # Hold the guest's answers open, and throw away what the monitor says.
  exec 9<>"$run/bell.out"
  cat <"$run/mon.out" >"$run/mon.log" 2>&1 7>&- 9>&- &
}

# What is known of a machine that ended by itself or never came up.
explain() {
  echo "${0##*/}: $1" >&2
  grep -aE 'Kernel panic|end Kernel panic|Out of memory: Kill|Oops|BUG:' "$run/console.log" >&2
  tail -qn 5 "$run/mon.log" "$run/qemu.log" "$run/console.log" 2>/dev/null | tr -d '\033' | cut -c1-200 | sed 's/^/  | /' >&2
}

# no_guest: the status of a machine that did not come up; $emulator_died when that is why, and worth another try
no_guest() { died && return "$emulator_died"; return "$harness_failed"; }

# await WORD SECONDS: until the agent says WORD
await() {
  local line end=$((SECONDS + $2))
  while ((SECONDS < end)); do
    read -r -t 0.2 -u 9 line && [[ $line == "$1" ]] && return
    alive || return 1
  done
  return 1
}

# poll FILE SECONDS: until FILE is there; 1 the machine has ended, 2 out of time
poll() {
  local end=$((SECONDS + $2 + 1))
  until [[ -e $1 ]]; do
    alive || { [[ -e $1 ]] && return; return 1; }
    ((SECONDS < end)) || return 2
    sleep 0.03
  done
}

# make_warm: boot $image with $append and save it in $warm; in a subshell
make_warm() {
  local t=$SECONDS w
  for w in "$image"/warm-*; do # left by an older image or harness; guests that use it keep it open
    [[ $w == "${warm%-*}"-* ]] || rm -rf "$w"
  done
  rm -rf "$warm"
  run=$warm/boot shares=()
  mkdir -p "$run"
  trap halt EXIT
  echo "${0##*/}: first use of this configuration, booting it once" >&2
  qemu-img create -q -f qcow2 -b "$image/root.img" -F raw "$warm/disk.qcow2"
  start_qemu "$warm/disk.qcow2" qcow2 off "file,mem-path=$warm/ram,share=on"
  { await ready 600 && bell warm && await warm 600; } || { explain "the guest did not boot"; no_guest; exit; }
  printf '%s\n' 'migrate_set_capability x-ignore-shared on' "migrate \"exec:cat>$warm/state\"" quit >"$run/mon.in"
  wait "$(<"$run/qemu.pid")" || :
  [[ -s $warm/state ]] || { explain "the guest could not be saved"; no_guest; exit; }
  halt
  touch "$warm/ready"
  echo "${0##*/}: saved after $((SECONDS - t)) s, $(du -sh "$warm" | cut -f1)" >&2
}

# boot: bring a machine up in $run, shares mounted.  An emulator that crashes on the way is started again: QEMU 7.2 does at
# times, in the firmware even.
boot() {
  local try rc
  "$here/guest-build" "$GUEST_SUITE" >&2 || return
  image=$GUEST_CACHE/$GUEST_SUITE
  for try in 1 2 3; do
    bring_up
    rc=$?
    ((rc == emulator_died)) || return "$rc"
    echo "${0##*/}: QEMU itself crashed, attempt $try of 3" >&2
    rm -rf "${run:?}"/*
  done
  return "$rc"
}

bring_up() {
  if [[ $cold ]]; then
    start_qemu "$image/root.img" raw on ram
    await ready 600 || { explain 'the guest did not boot'; no_guest; return; }
  else
    warm=$image/warm-$( (cat "$image/key" "$here/guest-lib.sh"; qemu-system-x86_64 --version) | short)
    warm+=-$(echo "$GUEST_MEM $GUEST_SMP $GUEST_CPU $append" | short)
    exec 7>"$image/lock.warm"
    flock 7
    [[ -e $warm/ready ]] || (make_warm) || return
    exec 7>&-
    start_qemu "$warm/disk.qcow2" qcow2 on "file,mem-path=$warm/ram,share=off" -incoming defer
    printf '%s\n' 'migrate_set_capability x-ignore-shared on' "migrate_incoming \"exec:cat $warm/state\"" >"$run/mon.in"
  fi
  bell "init $(date +%s.%N)"
  poll "$run/ctl/up" 60 || { explain "the guest did not come up"; no_guest; return; }
  [[ ! -e $run/ctl/failed ]] || { explain "could not mount $(<"$run/ctl/failed")"; return "$harness_failed"; }
}

# send SECONDS COMMAND...: run it in the machine in $run, output live; returns its exit status
send() {
  local limit=$1 id holder tails=() rc s
  shift
  id=$BASHPID-$RANDOM
  printf '%q ' "$@" >"$run/ctl/$id.cmd"
  [[ ! $stdin ]] || cat >"$run/ctl/$id.in"
  : >"$run/ctl/$id.out"
  : >"$run/ctl/$id.err"
  sleep infinity 9>&- &
  holder=$!
  # tail copies what is left when the holder ends
  tail -q -f -s 0.05 -c +1 --pid=$holder "$run/ctl/$id.out" 9>&- &
  tails+=($!)
  tail -q -f -s 0.05 -c +1 --pid=$holder "$run/ctl/$id.err" >&2 9>&- &
  tails+=($!)
  bell "run $id"
  s=0
  poll "$run/ctl/$id.rc" "$limit" || s=$?
  if ((s == 2)); then bell "kill $id KILL"; fi
  kill $holder
  wait $holder "${tails[@]}" 2>/dev/null
  case $s in
    0) rc=$(<"$run/ctl/$id.rc") ;;
    1) explain "the guest ended before the command did"; no_guest; rc=$? ;;
    2) echo "${0##*/}: time-out after $limit s" >&2; rc=$timed_out ;;
  esac
  rm -f "$run/ctl/$id".*
  return "$rc"
}

# halt: end the machine in $run (its disk is thrown away) and remove the folder
halt() {
  local pid
  [[ -d ${run-} ]] || return 0
  if [[ -e $run/qemu.pid ]] && pid=$(<"$run/qemu.pid") && [[ $(readlink "/proc/$pid/exe") == *qemu* ]]; then
    kill "$pid" 2>/dev/null
    for _ in {1..100}; do kill -0 "$pid" 2>/dev/null && sleep 0.03; done
  fi
  rm -rf "$run"
}

usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0" >&2; exit "$harness_failed"; }

# options ARGS...: the options guest-run and guest-shell share; what is left goes to $rest
options() {
  shares=() limit=600 append='' cold='' stdin='' rest=()
  while (($#)); do
    case $1 in
      --suite) GUEST_SUITE=$2; shift ;;
      --share) shares+=("$2"); shift ;;
      --timeout) limit=$2; shift ;;
      --append) append=$2; shift ;;
      --cold) cold=1 ;;
      --stdin) stdin=1 ;;
      --) shift; rest=("$@"); return ;;
      *) usage ;;
    esac
    shift
  done
}
