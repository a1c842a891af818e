#!/bin/sh
# toy_change.sh ACTION QUEUE_DIRECTORY <"JOB\nID\nID..."
#
# ACTION hold, release, delete; out: to the quarantine of JOB, back from it, erase there. Each is one rename or removal, safe
# to kill and to run again. "done ID" for what this did, "busy ID" for what is being delivered; last "end".
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
action=$1
read_fence
read -r job || exit 64
case $action:$job in
*[!0-9A-Za-z:-]*) exit 64 ;;
hold: | release: | delete: | out:?* | back:?* | erase:?*) ;;
*) exit 64 ;;
esac
ids=$(cat) || exit 74
[ "$(printf '%s\n' "$ids" | grep -Evc '^[0-9A-F]{8}$')" = 0 ] || exit 64
cd "$2" || exit 66
check_fence
there=mxfleet-quarantine/$job
[ "$action" != out ] || mkdir -p "$there" || exit 73

move() { [ -f "$1" ] && mv -nT "$1" "$2" 2>/dev/null && [ ! -e "$1" ]; } # FROM TO: never over another file
remove() { [ -f "$1" ] && rm "$1" 2>/dev/null; }
is_free() { [ ! -e "$1" ] && [ ! -e "$1.held" ] && [ ! -e "$1.busy" ]; }

change() { # ID
    case $action in
    hold) move "$1" "$1.held" ;;
    release) move "$1.held" "$1" ;;
    delete) remove "$1" || remove "$1.held" ;;
    out) move "$1" "$there/$1" || move "$1.held" "$there/$1.held" ;;
    back) is_free "$1" && { move "$there/$1" "$1" || move "$there/$1.held" "$1.held"; } ;;
    erase) remove "$there/$1" || remove "$there/$1.held" ;;
    esac
}

for id in $ids; do
    if change "$id"; then echo "done $id"; elif [ -e "$id.busy" ]; then echo "busy $id"; fi
done
[ -z "$job" ] || rmdir "$there" 2>/dev/null
echo end
