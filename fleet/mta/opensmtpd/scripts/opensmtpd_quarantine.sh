#!/bin/sh
# opensmtpd_quarantine.sh SMTPCTL SPOOL ACTION <"JOB\nLINE\nLINE..."
#
# ACTION out:    LINE "ID CREATED": takes messages out of the queue into SPOOL/mxfleet-quarantine/JOB/ID
#        delete: the same, and then the copy is removed
#        back:   LINE "ID schedule" or "ID wait": puts them back under their IDs, byte for byte, and attempts them or not
#        erase:  LINE "ID -": removes the copies
#        look:   tells, once what an earlier run has left half done is settled
#
# smtpctl says "removed" of an envelope in flight too, which is delivered all the same. So the message file is renamed
# away first: smtpd opens it anew for every attempt, and an attempt without it fails for now. Then the queue is looked at.
# What is not in flight now cannot be delivered any more, and only that is removed, if no envelope was done meanwhile; the
# rest gets its file back.
#
# JOB/ID.ready says that the copy is whole and the message may be removed from the queue; it names the paused envelopes,
# which come back paused. JOB/ID.coming instead: it is on its way back. JOB/ID.erasing instead: it is being removed. A
# guard outlives this shell when it does not come to its end: it finishes what is ready, coming or erasing and gives back
# every other file; whatever ended the guard too, the next run of any job does the same. Tells "ID" for each message that
# lies in JOB afterwards and not in the queue, or of which something could not be removed, "busy ID" for one in flight,
# "gone ID" for what this run removed (delete), "taken ID" where the queue has another message of that ID; then "end".
#
# Exit status: 64 and 66 bad arguments, 69 smtpd is not running, 73 could not write, 75 cannot be moved, 76 another run
# is at work; nothing was changed then. 74: it broke off, and some messages may be changed.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
# shellcheck source=enter.sh
. "${0%/*}/enter.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
# shellcheck source=opensmtpd_envelopes.sh
. "${0%/*}/opensmtpd_envelopes.sh"
# shellcheck source=opensmtpd_settle.sh
. "${0%/*}/opensmtpd_settle.sh"

fail() {
    echo "opensmtpd_quarantine: $2" >&2
    exit "$1"
}

smtpctl=$1
go_to "$2/queue" # so nobody can exchange what is in the spool directory itself
cd -P .. || fail 66 "no spool $2"
action=$3
[ "$action" = look ] || read_fence
read -r job || fail 64 "no job"
case $job in
'' | *[!0-9A-Za-z-]*) fail 64 "bad job" ;;
esac
work=$(mktemp -d) || exit 73
guard=
trap '[ $? -ne 0 ] || [ -z "$guard" ] || kill "$guard" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM
cat >"$work/wanted" || fail 73 "the input was cut off"
case $action in
out | delete) form='^[0-9a-f]{8} [0-9]+$' ;;
back) form='^[0-9a-f]{8} (schedule|wait)$' ;;
erase | look) form='^[0-9a-f]{8} -$' ;;
*) fail 64 "no such action" ;;
esac
[ "$(grep -vcE "$form" "$work/wanted")" = 0 ] || fail 64 "bad line"
there=mxfleet-quarantine/$job
[ "$action" != delete ] || there=mxfleet-quarantine/deleting-$job
# shellcheck disable=SC2034 # settle looks at it
mine=$there

eight='[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]' # what follows ID in an envelope's name

queue_of() { # ID: its directory in the queue
    echo "queue/${1%??????}/$1"
}

lock() { # from here on something may be half done: one at a time
    exec 9>>mxfleet-quarantine/lock || fail 73 "cannot make mxfleet-quarantine/lock"
    flock -w 60 9 || fail 76 "another run is at work"
}

begin() { # the guard has its turn when this shell is gone
    lock
    check_fence
    # shellcheck disable=SC2154 # of opensmtpd_settle.sh
    smtpctl=$smtpctl setsid flock mxfleet-quarantine/lock sh -c "$shared
settle" </dev/null >/dev/null 2>&1 9>&- 6>&- &
    guard=$!
    settle
}

must_run() { # what smtpctl reads from the files itself, nobody can change by smtpctl
    "$smtpctl" show status >/dev/null || exit 69
}

# "quiet ID" or "busy ID" of each moved message (ID, envelopes that it had), wanted being one with an envelope of that time
# of creation: a bounce that smtpd makes of one is another envelope of the same message, and later. Without envelopes
# that it had it is busy: one was delivered meanwhile. JOB/ID.new gets the paused envelopes of a quiet one.
# shellcheck disable=SC2016
judge='FILENAME == ARGV[1] { wanted[$1 " " $2]; next }
    FILENAME == ARGV[2] { had[$1] = $2; next }
    !($1 in had) { next }
    { count[$1]++ }
    ($1 " " $2) in wanted { found[$1] }
    $5 != "pending" { busy[$1] }
    $4 == "paused" { paused[$1] = paused[$1] $3 "\n" }
    END {
        for (id in found) {
            is_busy = (id in busy) || had[id] > count[id]
            print (is_busy ? "busy" : "quiet"), id
            if (is_busy || !(id in paused)) continue
            printf "%s", paused[id] >(there "/" id ".new")
            close(there "/" id ".new")
        }
    }'

broke() { fail 74 "it broke off: $1"; }

# What takes a process for each message is done by four at once. smtpd answers 32 smtpctl of root's beside each other.
side_by_side() { xargs -r -s 1000000 -P 4 "$@"; }

is_linked() { # ID: each of its envelopes
    for envelope in "queue/${1%??????}/$1/$1"$eight; do
        [ -e "$there/$1/${envelope##*/}" ] || return
    done
}

move_out() { # the message files of the wanted; "ID ENVELOPES" of what was moved
    sure sed "s|^\(.*\) .*|$there/\1|" "$work/wanted" | sure uncut xargs -r mkdir 2>/dev/null
    while read -r id _; do
        home=queue/${id%??????}/$id
        set -- "$there/$id" "$there/$id"/* # what another run has left there is not for this one to take for its own
        if [ -e "$home/message" ] && is_plain "$id" && [ -d "$1" ] && [ ! -e "$2" ]; then
            set -- "$home/$id"$eight
            echo "$id $#" >&3
            echo "$home/message $there/$id/message"
        fi
    done <"$work/wanted" 3>"$work/had" | sure uncut side_by_side -n 2 mv -n -T --
    while read -r id had; do [ ! -e "$there/$id/message" ] || echo "$id $had"; done <"$work/had"
}

link_envelopes() { # of the quiet; the marks come when all links are there, "ID" of what may be removed
    while read -r id; do
        set -- "queue/${id%??????}/$id/$id"$eight
        ! is_plain "$id" || echo "$* $there/$id/"
    done <"$work/quiet" | sure uncut side_by_side -L 1 ln --
    while read -r id; do
        is_linked "$id" || continue
        if [ -e "$there/$id.new" ]; then echo "$there/$id.new $there/$id.ready"; else command : >"$there/$id.ready"; fi
    done <"$work/quiet" | sure uncut side_by_side -n 2 mv -T --
    while read -r id; do [ ! -e "$there/$id.ready" ] || echo "$id"; done <"$work/quiet"
}

take_out() {
    must_run
    mkdir -p mxfleet-quarantine || fail 73 "cannot make mxfleet-quarantine"
    chmod 700 mxfleet-quarantine
    begin
    mkdir -p "$there" || fail 73 "cannot make $there"
    [ "$(stat -c %d queue)" = "$(stat -c %d "$there")" ] || fail 75 "another file system"
    move_out >"$work/moved"
    look >"$work/then" || broke "smtpctl"
    awk -v there="$there" "$judge" "$work/wanted" "$work/moved" "$work/then" >"$work/judged" || broke "cannot write"
    for word in quiet busy; do sure sed -n "s/^$word //p" "$work/judged" >"$work/$word"; done
    link_envelopes >"$work/safe"
    side_by_side -n 1 "$smtpctl" remove <"$work/safe" >/dev/null || broke "smtpctl"
    await_removal <"$work/safe"
    settle
    rm -f "$there"/*.new
    # What left the queue by itself meanwhile needs no copy.
    sure awk 'FILENAME == ARGV[1] { known[$1]; next } !($1 in known) { print $1 }' "$work/then" "$work/moved" |
        while read -r id; do
            [ -e "$there/$id.ready" ] || [ -d "$(queue_of "$id")" ] || sure rm -rf "${there:?}/$id"
        done
    sync "$there" 2>/dev/null || sync
}

check_settled() { # what smtpd is about to remove is neither left nor done
    for ready in mxfleet-quarantine/"$job"/*.ready mxfleet-quarantine/deleting-"$job"/*.ready; do
        copy=${ready%.ready}
        id=${copy##*/}
        if [ -e "$copy/message" ] && is_queued "$id" && [ ! -e "$(queue_of "$id")/message" ]; then
            broke "smtpd has not removed $id yet"
        fi
    done
}

put_back() {
    [ -d "$there" ] || return 0
    [ "$(stat -c %d queue)" = "$(stat -c %d "$there")" ] || fail 75 "another file system"
    must_run
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
            is_plain "$id" || continue
            # smtpd must be able to read what comes back: both directories are the message file's owner's.
            mkdir "${home%/*}" 2>/dev/null
            chown -h --reference="$there/$id/message" "$there/$id" "${home%/*}" || continue
            [ ! -s "$there/$id.ready" ] || mode='wait'
            mv -T "$there/$id.ready" "$there/$id.coming" || continue
            # A paused one comes without its file until it is paused, so that nothing can be sent before.
            [ ! -s "$there/$id.coming" ] || mv -n -T "$there/$id/message" "$there/$id.back" || continue
            mv -n -T "$there/$id" "$home" || continue
            come_back "$there" "$id" || broke "smtpctl"
            [ "$mode" = wait ] || "$smtpctl" schedule "$id" </dev/null >/dev/null || broke "smtpctl"
        fi
    done <"$work/wanted"
    settle
    sync queue 2>/dev/null || sync
    rmdir "$there" 2>/dev/null
    return 0
}

case $action in
out | delete)
    if [ -s "$work/wanted" ]; then take_out; fi
    check_settled
    ;;
back)
    if [ -s "$work/wanted" ]; then put_back; fi
    ;;
look)
    if [ -d mxfleet-quarantine ]; then
        lock
        settle
        check_settled
    fi
    ;;
erase)
    [ ! -d "$there" ] || begin
    while read -r id rest; do
        home=$(queue_of "$id")
        # Not what still has its only file here.
        is_queued "$id" && [ ! -e "$home/message" ] && continue
        [ -e "$there/$id" ] || [ -e "$there/$id.ready" ] || continue
        mv -f -T "$there/$id.ready" "$there/$id.erasing" 2>/dev/null || : >"$there/$id.erasing" || broke "cannot write"
    done <"$work/wanted"
    settle
    rmdir "$there" 2>/dev/null
    [ ! -d mxfleet-quarantine ] || sync mxfleet-quarantine 2>/dev/null || sync
    ;;
esac
if [ -e "$work/busy" ]; then sure sort -u "$work/busy" | sure sed 's/^/busy /'; fi
for ready in "$there"/*.ready; do
    id=${ready##*/}
    id=${id%.ready}
    [ -e "$there/$id/message" ] && ! is_queued "$id" || continue
    if [ "$action" != delete ]; then
        echo "$id"
    elif mv -T "$ready" "$there/$id.erasing" && rm -rf "${there:?}/$id"; then
        rm -f "$there/$id.erasing"
        echo "gone $id"
    fi
done
for mark in "$there"/*.erasing; do # what could not be removed
    id=${mark##*/}
    [ ! -e "${mark%.erasing}" ] || echo "${id%.erasing}"
done
[ "$action" != delete ] || rmdir "$there" 2>/dev/null
echo end
