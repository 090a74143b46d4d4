# Shared by the scripts of this folder: where things are, how progress and failure are told. It is sourced, never run.
# shellcheck shell=sh

ROOT=$(cd "$(dirname "$0")/.." && pwd)
BUILD=${BUILD:-$ROOT/build}
BASE=${BASE:-debian:bookworm-slim}
# The classic builder needs no plugin of the docker command and is there in every engine that this project supports.
DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-0}
export DOCKER_BUILDKIT

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
	say "$*"
	exit 1
}

need_root() { [ "$(id -u)" = 0 ] || die "run this as root: $1"; }

# quietly LOG COMMAND...: runs the command with its output in the file LOG, and shows the end of LOG when it fails.
quietly() {
	quiet_log=$1
	shift
	mkdir -p "$(dirname "$quiet_log")"
	if "$@" >"$quiet_log" 2>&1 </dev/null; then
		return 0
	fi
	say "failed: $*"
	say "the last lines of $quiet_log:"
	tail -n 25 "$quiet_log" | sed 's/^/    /' >&2
	return 1
}

now() { date +%s; }
