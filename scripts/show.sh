# Shared by the acts of the demo: a command is shown before it runs, a claim is checked. It is sourced, never run.
# shellcheck shell=sh

bold='' blue='' green='' red='' plain=''
if [ -t 1 ]; then bold='\033[1m' blue='\033[36m' green='\033[32m' red='\033[31m' plain='\033[0m'; fi
title() { printf "\n$bold%s$plain\n" "$*"; }
show() { printf "\n$blue$ %s$plain\n" "$*"; }
# quoted ARGUMENT...: as a user would type them.
quoted() {
	for a in "$@"; do
		case $a in *[!A-Za-z0-9_./:=,^@%+-]* | '') printf "'%s' " "$a" ;; *) printf '%s ' "$a" ;; esac
	done | sed 's/ $//'
}
run() {
	show "$(quoted "$@")"
	"$@"
}
ok() { printf "$green  + %s$plain\n" "$*"; }
false_claim() {
	printf "$red  - NOT TRUE: %s$plain\n" "$*"
	exit 1
}
# claim TEXT COMMAND...: the text is true if the command succeeds.
claim() {
	text=$1
	shift
	if "$@" >/dev/null 2>&1; then ok "$text"; else false_claim "$text"; fi
}
# patiently SECONDS COMMAND...: until the command succeeds.
patiently() {
	tries=$(($1 * 5))
	shift
	until "$@" >/dev/null 2>&1; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || return 1
		sleep 0.2
	done
}
