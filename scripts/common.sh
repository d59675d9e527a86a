# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
# shellcheck shell=bash

# What the scripts share; sourced by them.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say()
{
	printf '== %s\n' "$*"
}

fail()
{
	printf '%s: %s\n' "$(basename "$0")" "$*" >&2
	exit 1
}

need_root()
{
	[ "$(id -u)" -eq 0 ] || fail "run it as root: $1"
}

# Prints the help: the comment at the top of the script, without its licence lines.
print_help()
{
	sed -n -e '1,3d' -e '/^#/!q' -e 's/^# \{0,1\}//p' "$0"
}

# build DIRECTORY TARGETS... -- MESON OPTIONS...: configures the build directory when it is new, and
# builds quietly: the compiler's words are shown when it fails.
build()
{
	local directory=$1 output targets=() status=0
	shift
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		targets+=("$1")
		shift
	done
	[ $# -eq 0 ] || shift
	output=$(mktemp)
	if [ ! -f "$directory/build.ninja" ]; then
		meson setup "$@" "$directory" "$root" >"$output" 2>&1 </dev/null || status=$?
	fi
	[ $status -ne 0 ] || ninja -C "$directory" "${targets[@]}" >"$output" 2>&1 </dev/null || status=$?
	[ $status -eq 0 ] || tail -n 60 "$output" >&2
	rm -f "$output"
	return $status
}
