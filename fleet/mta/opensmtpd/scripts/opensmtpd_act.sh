#!/bin/sh
# opensmtpd_act.sh SMTPCTL SPOOL ACTION <"ID CREATED\nID CREATED..."
#
# ACTION pause, resume or schedule, for messages that are queued with that time of creation. pause and schedule leave
# alone what is being delivered, and schedule paused envelopes: smtpctl would deliver them. What was in flight after all
# when we paused it is resumed. Tells "ID" for each message of which smtpctl says that it changed an envelope; then "end".
# Exit status 74: it broke off, and some messages may be changed.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
# shellcheck source=opensmtpd_envelopes.sh
. "${0%/*}/opensmtpd_envelopes.sh"
smtpctl=$1
action=$3
case $action in
pause | resume | schedule) ;;
*) exit 64 ;;
esac
work=$(mktemp -d) || exit 73
trap 'rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM
read_fence
cat >"$work/wanted" || exit 73
[ "$(grep -vcE '^[0-9a-f]{8} [0-9]+$' "$work/wanted")" = 0 ] || exit 64

must_run() { # what smtpctl reads from the files itself, nobody can change by smtpctl
    ! grep -q ' offline$' "$1" || {
        echo "smtpctl: smtpd doesn't seem to be running" >&2
        exit 69
    }
}

each() { # "ID" or "ID TARGET" on stdin; WORDS of smtpctl before the target
    while read -r id target; do
        case $("$smtpctl" "$@" "${target:-$id}" </dev/null) in
        0\ *) ;;
        [1-9]*) echo "$id" || exit 74 ;;
        *) exit 74 ;;
        esac
    done
}

look >"$work/now" || exit
must_run "$work/now"
check_fence
# Of each wanted message, which is one with an envelope of that time of creation: its targets. A message that is
# scheduled in part needs one command per envelope.
# shellcheck disable=SC2016
targets='FILENAME == ARGV[1] { wanted[$1 " " $2]; next }
    ($1 " " $2) in wanted { ids[$1] }
    { if ($5 != "pending") busy[$1]; if ($4 == "paused") paused[$1]; envelope[++count] = $0 }
    END {
        for (id in ids) {
            if (action == "schedule" && (id in paused) || action != "resume" && (id in busy)) continue
            print id
        }
        if (action != "schedule") exit
        for (at = 1; at <= count; at++) {
            split(envelope[at], word, " ")
            if ((word[1] in ids) && (word[1] in paused) && !(word[1] in busy) && word[4] == "free") print word[1], word[3]
        }
    }'
awk -v action="$action" "$targets" "$work/wanted" "$work/now" >"$work/targets" || exit 73
case $action in
schedule) each schedule <"$work/targets" >"$work/said" || exit ;;
*) each "$action" envelope <"$work/targets" >"$work/said" || exit ;;
esac
if [ "$action" = pause ]; then
    look >"$work/then" || exit 74
    # shellcheck disable=SC2016
    awk 'FILENAME == ARGV[1] { said[$1]; next } FILENAME == ARGV[2] { if ($4 == "paused") was[$3]; next }
        ($1 in said) && $5 == "inflight" { busy[$1] }
        ($1 in said) && $4 == "paused" && !($3 in was) { ours[$3] = $1 }
        END { for (name in ours) if (ours[name] in busy) print ours[name], name }' \
        "$work/said" "$work/now" "$work/then" >"$work/busy" || exit 74
    each resume envelope <"$work/busy" >/dev/null || exit
fi
sort -u "$work/said" || exit 74
echo end
