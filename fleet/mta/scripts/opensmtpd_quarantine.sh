#!/bin/sh
# opensmtpd_quarantine.sh SMTPCTL SPOOL ACTION <"JOB\nLINE\nLINE..."
#
# ACTION out:    LINE "ID CREATED": takes messages out of the queue into SPOOL/mxfleet-quarantine/JOB/ID
#        delete: the same, and then the copy is removed
#        back:   LINE "ID schedule" or "ID wait": puts them back under their IDs, byte for byte, and attempts them or not
#        erase:  LINE "ID -": removes the copies
#        look:   only tells
#
# smtpctl says "removed" of an envelope in flight too, which is delivered all the same. So the message file is renamed
# away first: smtpd opens it anew for every attempt, and an attempt without it fails for now. Then the queue is looked at
# again. What is not in flight now cannot be delivered any more, and only that is removed; the rest gets its file back.
#
# JOB/ID.ready says that the copy is whole and the message may be removed from the queue; it names the paused envelopes,
# which come back paused. A guard outlives this shell: it finishes what is ready and gives back every file that is not.
# Tells "ID" for each message that lies in JOB afterwards and not in the queue, "busy ID" for one in flight, "gone ID"
# for what this run removed (delete), "taken ID" where the queue has another message of that ID; then "end".
set -u
umask 077
LC_ALL=C
export LC_ALL

fail() {
    echo "opensmtpd_quarantine: $2" >&2
    exit "$1"
}

smtpctl=$1
cd "$2" && cd queue && cd .. || fail 66 "no spool $2"
action=$3
read -r job || fail 64 "no job"
case $job in
'' | *[!0-9A-Za-z-]*) fail 64 "bad job" ;;
esac
work=$(mktemp -d) || exit 73
guard=
trap 'rm -rf "$work"; [ -z "$guard" ] || kill "$guard" 2>/dev/null' EXIT
trap 'exit 143' HUP INT TERM
cat >"$work/wanted"
case $action in
out | delete) form='^[0-9a-f]{8} [0-9]+$' ;;
back) form='^[0-9a-f]{8} (schedule|wait)$' ;;
erase | look) form='^[0-9a-f]{8} -$' ;;
*) fail 64 "no such action" ;;
esac
! grep -qvE "$form" "$work/wanted" || fail 64 "bad line"
there=mxfleet-quarantine/$job
[ "$action" != delete ] || there=mxfleet-quarantine/deleting-$job

queue_of() { # ID: its directory in the queue
    echo "queue/${1%??????}/$1"
}

is_queued() { # ID: smtpd may leave an empty directory
    set -- "queue/${1%??????}/$1/$1"????????
    [ -e "$1" ]
}

# What makes both places whole again, in the shell or after its end.
# shellcheck disable=SC2016
settle='
    for ready in "$there"/*.ready; do
        id=${ready##*/}
        id=${id%.ready}
        if [ -e "$there/$id.back" ]; then
            # On its way back: into the queue once it is there, else into the copy.
            if [ -d "queue/${id%??????}/$id" ]; then
                mv -n -T "$there/$id.back" "queue/${id%??????}/$id/message"
            elif [ -d "$there/$id" ]; then
                mv -n -T "$there/$id.back" "$there/$id/message"
            fi
        elif [ -e "$there/$id/message" ] && [ -d "queue/${id%??????}/$id" ] &&
            [ ! -e "queue/${id%??????}/$id/message" ]; then
            "$smtpctl" remove "$id" >/dev/null
        fi
    done 2>/dev/null
    for message in "$there"/*/message; do
        id=${message%/message}
        id=${id##*/}
        home=queue/${id%??????}/$id
        if [ -e "$message" ] && [ ! -e "$there/$id.ready" ] && [ -d "$home" ]; then
            mv -n -T "$message" "$home/message" && rm -rf "${there:?}/$id"
        fi
    done 2>/dev/null'

begin() { # from here on something may be half done: one at a time, and the guard has its turn when this shell is gone
    exec 9>>mxfleet-quarantine/lock || fail 73 "cannot make mxfleet-quarantine/lock"
    flock -w 60 9 || fail 75 "another one is at work"
    smtpctl=$smtpctl there=$there setsid flock mxfleet-quarantine/lock sh -c "$settle" </dev/null >/dev/null 2>&1 9>&- &
    guard=$!
    eval "$settle"
}

# shellcheck disable=SC2016
envelopes='{ # "ID CREATED EVPID PAUSED STATE" of each line; a sender may contain bars, but no address two @
        if (split($0, field, "|") < 14) next
        rest = $0
        for (at = 0; at < 4; at++) rest = substr(rest, index(rest, "|") + 1)
        for (at = 0; at < 3; at++) {
            if (!match(rest, /^[^@]*@[^@|]*\|/)) next
            rest = substr(rest, RLENGTH + 1)
        }
        split(rest, last, "|")
        print substr($0, 1, 8), last[1], field[1], (("," field[4] ",") ~ /,suspend,/) ? "paused" : "free", last[5]
    }'

look() { # [ID]: the envelopes that are queued now, of all messages or of one
    "$smtpctl" show queue "$@" >"$work/queue" || exit
    awk "$envelopes" "$work/queue"
}

must_run() { # what smtpctl reads from the files itself, nobody can change by smtpctl
    ! grep -q ' offline$' "$1" || {
        echo "smtpctl: smtpd doesn't seem to be running" >&2
        exit 69
    }
}

quiet() { # FILE of envelopes, FILE of "ID CREATED": the messages of which nothing is in flight
    awk 'FILENAME == ARGV[1] { wanted[$1 " " $2]; next }
        ($1 " " $2) in wanted { found[$1]; if ($5 != "pending") busy[$1] }
        END { for (id in found) if (!(id in busy)) print id }' "$2" "$1"
}

busy() { # likewise: those of which something is
    awk 'FILENAME == ARGV[1] { wanted[$1 " " $2]; next }
        (($1 " " $2) in wanted) && $5 != "pending" { found[$1] }
        END { for (id in found) print id }' "$2" "$1"
}

take_out() {
    mkdir -p "$there" || fail 73 "cannot make $there"
    chmod 700 mxfleet-quarantine
    [ "$(stat -c %d queue)" = "$(stat -c %d "$there")" ] || fail 75 "another file system"
    begin
    look >"$work/now" || exit
    must_run "$work/now"
    quiet "$work/now" "$work/wanted" >"$work/quiet"
    busy "$work/now" "$work/wanted" >"$work/busy"
    # Few processes per message: an smtpctl for each is slow enough.
    sed "s|^|$there/|" "$work/quiet" | xargs -r mkdir 2>/dev/null
    if read -r id <"$work/quiet"; then
        sed "s|^|$there/|" "$work/quiet" | xargs chown --reference="$(queue_of "$id")" 2>/dev/null
    fi
    while read -r id; do
        home=queue/${id%??????}/$id
        if [ -e "$home/message" ] && [ -d "$there/$id" ] && [ ! -e "$there/$id/message" ]; then
            mv -n -T "$home/message" "$there/$id/message" && echo "$id"
        fi
    done <"$work/quiet" >"$work/moved"
    look >"$work/then" || exit
    awk 'FILENAME == ARGV[1] { moved[$1]; next } $1 in moved' "$work/moved" "$work/wanted" >"$work/still"
    quiet "$work/then" "$work/still" >"$work/safe"
    busy "$work/then" "$work/still" >>"$work/busy"
    awk -v there="$there" '$4 == "paused" && last != $1 { if (last != "") close(file); last = $1; file = there "/" $1 ".new" }
        $4 == "paused" { print $3 >file }' "$work/then"
    while read -r id; do
        ln "queue/${id%??????}/$id/$id"???????? "$there/$id/" || continue
        if [ -e "$there/$id.new" ]; then mv -T "$there/$id.new" "$there/$id.ready"; else : >"$there/$id.ready"; fi
        "$smtpctl" remove "$id" </dev/null >/dev/null || exit
    done <"$work/safe"
    await_removal
    eval "$settle"
    rm -f "$there"/*.new
    sync "$there" 2>/dev/null || sync
}

await_removal() { # smtpd has said "removed" before it removes the files
    for try in 1 2 3 4 5 6 7 8 9 10; do
        [ "$try" -eq 1 ] || sleep 0.5
        left=
        while read -r id; do
            ! is_queued "$id" || left=$id
        done <"$work/safe"
        [ -n "$left" ] || return 0
    done
}

put_back() {
    [ -d "$there" ] || return 0
    [ "$(stat -c %d queue)" = "$(stat -c %d "$there")" ] || fail 75 "another file system"
    "$smtpctl" show status >/dev/null || exit
    begin
    look >"$work/now" || exit
    while read -r id mode; do
        home=$(queue_of "$id")
        if [ -e "$there/$id.ready" ] && [ -e "$there/$id/message" ]; then
            rmdir "$home" 2>/dev/null
            if [ -e "$home" ] || grep -q "^$id " "$work/now"; then
                echo "taken $id"
                continue
            fi
            mkdir -p "${home%/*}" && chown --reference="$there/$id" "${home%/*}" || continue
            if [ -s "$there/$id.ready" ]; then
                mode='wait'
                put_back_paused "$id" "$home" || continue
            else
                mv -n -T "$there/$id" "$home" || continue
                "$smtpctl" discover "$id" </dev/null >/dev/null || exit
            fi
            rm -f "$there/$id.ready"
            [ "$mode" = wait ] || "$smtpctl" schedule "$id" </dev/null >/dev/null || exit
        fi
    done <"$work/wanted"
    sync queue 2>/dev/null || sync
    rmdir "$there" 2>/dev/null
    return 0
}

put_back_paused() { # ID HOME: without its file until its envelopes are paused, so that nothing can be sent before
    mv -n -T "$there/$1/message" "$there/$1.back" && mv -n -T "$there/$1" "$2" || return
    "$smtpctl" discover "$1" </dev/null >/dev/null || exit
    while read -r envelope; do
        "$smtpctl" pause envelope "$envelope" </dev/null >/dev/null || exit
    done <"$there/$1.ready"
    for try in 1 2 3 4 5 6 7 8 9 10; do
        [ "$try" -eq 1 ] || sleep 1
        look "$1" >"$work/then" || exit
        grep "^$1 " "$work/then" | grep -Fwf "$there/$1.ready" | grep -q ' inflight$' || break
    done
    mv -n -T "$there/$1.back" "$2/message"
}

case $action in
out | delete)
    if [ -s "$work/wanted" ]; then take_out; fi
    ;;
back)
    if [ -s "$work/wanted" ]; then put_back; fi
    ;;
erase)
    [ ! -d "$there" ] || begin
    while read -r id rest; do
        home=$(queue_of "$id")
        # Not what still has its only file here.
        is_queued "$id" && [ ! -e "$home/message" ] && continue
        rm -rf "${there:?}/$id" "${there:?}/$id.ready"
    done <"$work/wanted"
    rmdir "$there" 2>/dev/null
    [ ! -d mxfleet-quarantine ] || sync mxfleet-quarantine 2>/dev/null || sync
    ;;
esac
if [ -e "$work/busy" ]; then sort -u "$work/busy" | sed 's/^/busy /'; fi
for ready in "$there"/*.ready; do
    id=${ready##*/}
    id=${id%.ready}
    [ -e "$there/$id/message" ] && ! is_queued "$id" || continue
    if [ "$action" = delete ]; then
        rm -rf "${there:?}/$id" "$ready"
        echo "gone $id"
    else
        echo "$id"
    fi
done
[ "$action" != delete ] || rmdir "$there" 2>/dev/null
echo end
