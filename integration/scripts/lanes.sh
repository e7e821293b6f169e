# shellcheck shell=bash
# Lanes: a command that runs tests, its log, its counts.  Sourced by `test` and `test-guest`.
#
# Tests are Rust's own test programs, run with --show-output: a test that can't run where it is prints a line
# "SKIP reason" and returns; it counts as skipped, not as passed.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
logs=$top/target/test-logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0
summary=()

# lane NAME SECONDS COMMAND...: runs it, no longer than SECONDS, and adds its counts to the total
lane() {
  local name=$1 limit=$2 log start=$SECONDS rc=0 p f s
  shift 2
  log=$logs/${name//[^a-zA-Z0-9.]/-}.log
  printf '\n== %s\n' "$name"
  timeout --kill-after=20 "$limit" "$@" >"$log" 2>&1 </dev/null || rc=$?
  read -r p f s < <(count "$log")
  if ((rc == 124 || rc == 137)); then
    echo "$name: not done after $limit s" >>"$log"
    f=$((f + 1))
  elif ((rc != 0 && f == 0)); then
    f=1
  elif ((p == 0 && f == 0)); then
    # All skipped is no success: the lane is there for something that was not to be had.
    echo "$name: nothing was tested" >>"$log"
    f=1
  fi
  tell "$name" "$p" "$f" "$s" $((SECONDS - start))
  if ((f)); then
    failures "$log"
    echo "   the whole log: $log"
  fi
}

# check NAME SECONDS COMMAND...: a command that passes or fails as one
check() {
  local name=$1 limit=$2 log start=$SECONDS rc=0
  shift 2
  log=$logs/${name//[^a-zA-Z0-9.]/-}.log
  printf '\n== %s\n' "$name"
  timeout --kill-after=20 "$limit" "$@" >"$log" 2>&1 </dev/null || rc=$?
  if ((rc == 0)); then
    tell "$name" 1 0 0 $((SECONDS - start))
  else
    tell "$name" 0 1 0 $((SECONDS - start))
    tail -n 60 "$log"
  fi
  return "$rc"
}

# skip NAME REASON: what can't be run here at all
skip() {
  printf '\n== %s\nSKIP %s\n' "$1" "$2"
  tell "$1" 0 0 1 0
}

# tell NAME PASSED FAILED SKIPPED SECONDS
tell() {
  passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
  local line
  line=$(printf '%-34s %4d passed %4d failed %4d skipped %5d s' "$@")
  summary+=("$line")
  echo "$line"
}

# count LOG: passed, failed, skipped of the test programs whose output it holds
count() {
  awk '
    /^test result: / { for (i = 1; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1) } }
    /^SKIP / { s++ }
    /^SKIP\+ / { k++ }
    END { if (s > p) s = p; print p - s + 0, f + 0, s + k + 0 }' "$1"
}

# failures LOG: what failed tests said, and what they are called
failures() {
  awk '/^failures:$/ { on = 1 } on { print "   " $0 } /^test result:/ { on = 0 }' "$1" | head -n 400
  grep -q '^test result: FAILED' "$1" || tail -n 40 "$1"
}

# verdict: the table, why tests were skipped, and the one line that counts
verdict() {
  printf '\nlanes\n'
  printf '  %s\n' "${summary[@]}"
  if cat "$logs"/*.log | grep -q "^SKIP+* "; then
    printf '\nskipped, because\n'
    cat "$logs"/*.log | grep "^SKIP+* " | sed "s/^SKIP+* //" | sort | uniq -c | sort -rn
  fi
  if cat "$logs"/*.log | grep -q "^RETRY "; then
    printf '\nthe peer was asked again, since it gave something else at first\n'
    cat "$logs"/*.log | grep "^RETRY " | sed "s/^RETRY //; s/:.*//" | sort | uniq -c | sort -rn
  fi
  printf '\n%d s in all\n\n%d passed, %d failed, %d skipped\n' "$SECONDS" "$passed" "$failed" "$skipped"
  ((failed == 0 && passed > 0))
}
