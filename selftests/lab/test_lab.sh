#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests the lab itself: that what a test says inside arrives outside, and that
# nothing that goes wrong inside passes for success. TAP.
#
#   selftests/lab/test_lab.sh [--arch npt|ept] [--kernel 6.1|6.12]

arch=npt kernel=6.1
while [ $# -gt 1 ]; do
	case $1 in
	--arch) arch=$2 ;;
	--kernel) kernel=$2 ;;
	esac
	shift 2
done

top=$(cd "$(dirname "$0")/../.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0

ok() {		# ok NAME CONDITION...
	local name=$1
	shift
	if "$@"; then
		passed=$((passed + 1))
		echo "ok $((passed + failed)) - $name"
	else
		failed=$((failed + 1))
		echo "not ok $((passed + failed)) - $name"
		sed 's/^/# out: /' "$tmp/out" | tail -n 20
		sed 's/^/# err: /' "$tmp/err" | tail -n 20
	fi
}

lab() {		# lab [OPTION...] -- CMD...; leaves $tmp/out, $tmp/err, $status
	"$top/scripts/lab" --arch "$arch" --kernel "$kernel" "$@" >"$tmp/out" 2>"$tmp/err"
	status=$?
}

is() { [ "$1" = "$2" ]; }
out_is() { [ "$(cat "$tmp/out")" = "$1" ]; }
out_has() { grep -q -- "$1" "$tmp/out"; }
err_has() { grep -q -- "$1" "$tmp/err"; }

echo "TAP version 13"

# --- what goes in and comes out
lab --no-guest -- true
ok "status 0 comes through" is $status 0

mkdir -p "$tmp/overlay/etc"
echo "laid over" >"$tmp/overlay/etc/lab-test"
args=('two words' "quo'te" 'dou"ble' '$HOME `id` *' 'back\slash' '' $'new\nline' 'ümlaut')
began=$(date +%s.%N)
lab --no-guest --overlay "$tmp/overlay" --append "lab.test=yes" --boot-log "$tmp/log" --smp 1 -- sh -c '
	for a; do printf "<%s>" "$a"; done; echo
	cat /etc/lab-test
	grep -o lab.test=yes /proc/cmdline
	id -u
	uname -r
	[ -c /dev/kvm ] && echo has kvm
	echo to stderr >&2
	exit 7' sh "${args[@]}"
echo "# $arch $kernel: a run of a few commands took $(echo "$(date +%s.%N) - $began" | bc 2>/dev/null || echo '?') s"
ok "status 7 comes through" is $status 7
ok "arguments arrive unchanged" is "$(head -n 2 "$tmp/out")" "$(printf "<%s>" "${args[@]}")"
ok "an overlay lies over the root" out_has "laid over"
ok "--append reaches the kernel line" out_has "lab.test=yes"
ok "the command runs as root" out_has "^0$"
ok "the kernel is the one asked for" out_has "^$kernel\."
ok "/dev/kvm is there" out_has "has kvm"
ok "stderr stays apart" err_has "to stderr"
ok "--boot-log holds the console" grep -q "Power down" "$tmp/log"

lab --no-guest -- /no/such/command
ok "a missing command gives 127" is $status 127

lab --no-guest -- sh -c 'head -c 100000 /dev/urandom >/tmp/r; md5sum </tmp/r >&2; cat /tmp/r'
ok "100000 random bytes arrive whole" \
	is "$(md5sum <"$tmp/out")" "$(tail -n 1 "$tmp/err")"

lab --no-guest -- sh -c 'kill -9 $$'
ok "death by signal 9 gives 137" is $status 137

# Streaming: the first line is out while the command still runs. In Bochs sleeping is quick: it has something to do.
"$top/scripts/lab" --arch "$arch" --kernel "$kernel" --no-guest -- sh -c 'echo first; sleep 5; head -c 20000000 /dev/urandom | md5sum; echo second' 2>"$tmp/err" |
	while read -r line; do echo "$line $(date +%s%N)"; done >"$tmp/out"
first=$(awk '/first/{print $2}' "$tmp/out") second=$(awk '/second/{print $2}' "$tmp/out")
ok "output is streamed" [ $(((${second:-0} - ${first:-0}) / 1000000)) -gt 300 ]

# --- what goes wrong
lab --no-guest --timeout 40 -- sleep 100000
ok "a timeout gives 124" is $status 124

lab --no-guest -- sh -c 'echo "WARNING: CPU: 0 PID: 1 at kernel/test.c:1 test" >/dev/kmsg; exit 0'
ok "a kernel WARNING gives 97" is $status 97
ok "and is printed" err_has "kernel/test.c:1"

lab --no-guest -- sh -c 'echo "BUG redoubt_slab: Objects remaining in redoubt_slab on __kmem_cache_shutdown()" >/dev/kmsg; exit 3'
ok "objects remaining in a slab gives 97, not the command's 3" is $status 97

lab --no-guest -- sh -c 'echo c >/proc/sysrq-trigger; sleep 100'
ok "a host panic gives 97" is $status 97
ok "and its message is printed" err_has "sysrq triggered crash"

# --- the guest
if [ "$arch" = npt ]; then
	mkdir -p "$tmp/overlay/guest/overlay/etc"
	echo "in the guest" >"$tmp/overlay/guest/overlay/etc/guest-test"
	lab --overlay "$tmp/overlay" --mem 3072 -- sh -c '
		guest-run --smp 2 --append guest.test=yes -- sh -c "uname -n; nproc; cat /etc/guest-test /proc/cmdline; exit 9"
		echo "run $?"
		guest-run --background || echo "background failed: $?"
		[ -S /run/guest.qmp ] && echo has qmp
		guest-exec -- sh -c "echo \"\$1\"; exit 4" sh "a  b"
		echo "exec $?"
		guest-exec --timeout 3 -- sleep 1000
		echo "timeout $?"
		guest-exec -- pidof sleep || echo "sleep is gone"
		guest-exec -- sh -c "echo c >/proc/sysrq-trigger; sleep 100"
		echo "panic $?"
		guest-stop
		guest-run --qemu-arg -no-such-argument -- true
		echo "qemu $?"
		ls /run | tr "\n" " "'
	ok "guest-run: the guest's own name" out_has "^redoubt-guest$"
	ok "guest-run: its CPUs" out_has "^2$"
	ok "guest-run: /guest/overlay lies over its root" out_has "in the guest"
	ok "guest-run: --append" out_has "guest.test=yes"
	ok "guest-run: the status comes through" out_has "^run 9$"
	ok "guest-run --background: QMP socket" out_has "has qmp"
	ok "guest-exec: quoting" out_has "^a  b$"
	ok "guest-exec: the status comes through" out_has "^exec 4$"
	ok "guest-exec: a timeout gives 124" out_has "^timeout 124$"
	ok "guest-exec: and takes the command with it" out_has "sleep is gone"
	ok "a guest that panics is told from one that answers" out_has "^panic 125$"
	ok "guest-run: QEMU that does not start gives 98" out_has "^qemu 98$"
	ok "all of it without a complaint of the host's kernel" is $status 0
fi

echo "1..$((passed + failed))"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
