#!/bin/sh
# qmail_change.sh ACTION QUEUE SERVICE SVC SVSTAT LOG SECONDS <"JOB\nID SIZE MTIME SENDER\n...end\n"
#
# Changes messages while qmail-send is down, and starts it again. ACTION is one of
#   delete  removes them          hold  moves them to mxfleet-hold/       quarantine  to mxfleet-quarantine/JOB/
#   release, restore  move them back from there, restore-try also makes them due, restore-held to mxfleet-hold/
#   try     makes them due at once          bounce  makes them due and older than queuelifetime
# and, without a stop: erase removes them from mxfleet-quarantine/JOB/, look only tells what lies there ("ID there").
# SENDER: the bytes of the envelope sender, a newline as \001. MTIME: that of the file in mess/, with six decimals.
#
# LOG: a multilog directory, a file or none.
#
# Says "was up" or "was down", "ID done", "ID gone" (no such message now) or "ID left WHY" for each, "stopping" when a
# delivery kept qmail-send from stopping within SECONDS (nothing was changed then), "log INODE SIZE" as it was while
# qmail-send was down, "settled" when it first put right what nobody had lived to finish, "guardian session" (below),
# "now STATUS" and "end". All of it is said when qmail-send runs again, so no reader can delay that.
#
# What makes this safe however it ends:
# - While files move, lock/sendmutex is ours, inherited by every child: no qmail-send can run, whoever starts it.
# - A guardian in a session of its own, and where systemd runs in a scope of its own, waits for the job lock, which is
#   free only when this shell and all its children are gone; it puts right what was cut off and starts qmail-send. Only
#   then is the state file emptied. "guardian session": systemd-run gave it no scope within 2 s, so that systemd may end
#   it with the session (KillUserProcesses in logind.conf).
# - Where the guardian was killed too, the job lock is free and the state file is not empty: whoever comes next, also to
#   look only, does its work. qmail_list.sh tells that it is so.
# - A message moves by rename(2), activating files (info, todo) first out and last in, mess/ID last out and first in. So
#   where mess/ID lies tells where the rest belongs, and a half moved message is never attempted. After a reboot
#   qmail-send runs beside what was cut off then, until the next change puts it right.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
state=
split=
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
trap '' HUP INT PIPE

common=$(
    cat <<'COMMON'
enter() { # QUEUE
    cd "$1" 2>/dev/null && find_split && state=/run/mxfleet-qmail-$(stat -c %d-%i .)
}

is_split() { # KIND
    case $1 in
    mess | info | remote | local) return 0 ;;
    todo | intd) [ "$big" = 1 ] ;;
    *) return 1 ;;
    esac
}

find_split() {
    split=$(find mess -mindepth 1 -maxdepth 1 -type d -name '[0-9]*' -printf '%f\n' | grep -c '^[0-9]*$')
    big=0
    [ ! -d todo/0 ] || big=1
    [ "$split" -gt 0 ] && [ -d "mess/$((split - 1))" ] && [ -d "info/$((split - 1))" ] &&
        [ -d "remote/$((split - 1))" ] && [ -d "local/$((split - 1))" ]
}

lines() {
    [ -z "$1" ] || printf '%s\n' "$1"
}

not_in() { # those of the IDs in $2 that are not in $1
    printf '%s\n.\n%s\n' "$1" "$2" | awk '$1 == "." { rest = 1; next } !rest { has[$1]; next } !($1 in has) && $1 != ""'
}

paths() { # KIND: IDs on stdin
    if is_split "$1"; then
        awk -v kind="$1" -v by="$split" '{ print kind "/" $1 % by "/" $1 }'
    else
        awk -v kind="$1" '{ print kind "/" $1 }'
    fi
}

out_of() { # AREA KIND: moves the files of the IDs on stdin there
    paths "$2" | xargs -r mv -n -t "$1/$2" -- 2>/dev/null
}

into() { # AREA KIND: moves the files of the IDs on stdin back; a name that is taken stays where it is
    if is_split "$2"; then
        moving=$(cat)
        for at in $(lines "$moving" | awk -v by="$split" '{ print $1 % by }' | sort -un); do
            lines "$moving" | awk -v at="$at" -v by="$split" -v from="$1/$2" '$1 % by == at { print from "/" $1 }' |
                xargs -r mv -n -t "$2/$at" -- 2>/dev/null
        done
    else
        sed "s|^|$1/$2/|" | xargs -r mv -n -t "$2" -- 2>/dev/null
    fi
}

names() { # DIRECTORY...: IDs of the files that are there
    find "$@" -type f -name '[1-9]*' -printf '%f\n' 2>/dev/null | sort -u
}

make_young() { # paths in mess/ on stdin: what lies there without info/ and was not read for 36 hours, qmail-send removes
    xargs -r touch -a -c -- 2>/dev/null
}

back() { # AREA: IDs on stdin
    wanted=$(cat)
    lines "$wanted" | sed "s|^|$1/mess/|" | make_young
    for kind in mess remote local bounce intd info todo; do
        lines "$wanted" | into "$1" "$kind"
    done
}

out() { # AREA: IDs on stdin
    wanted=$(cat)
    lines "$wanted" | paths mess | make_young
    for kind in todo info intd bounce local remote mess; do
        lines "$wanted" | out_of "$1" "$kind"
    done
}

across() { # AREA AREA: IDs on stdin, from one to the other
    wanted=$(cat)
    for kind in todo info intd bounce local remote mess; do
        lines "$wanted" | sed "s|^|$1/$kind/|" | xargs -r mv -n -t "$2/$kind" -- 2>/dev/null
    done
}

is_ours() { # DIRECTORY...: made by us, and no link that an account of qmail put in its place
    for each in "$@"; do
        [ "$(stat -c '%F %u' "$each" 2>/dev/null)" = "directory $(id -u)" ] || return
    done
}

make_area() { # AREA
    mkdir -p "$1/mess" "$1/info" "$1/remote" "$1/local" "$1/bounce" "$1/todo" "$1/intd" 2>/dev/null &&
        is_ours "${1%/*}" "$1" && [ "$(stat -c %d "$1/mess")" = "$(stat -c %d mess/0)" ]
}

repair() { # what was cut off goes to where mess/ID is; of a cut-off delete, what is out of the queue goes
    for area in mxfleet-hold mxfleet-delete mxfleet-quarantine/*; do
        [ -d "$area/mess" ] && is_ours "${area%/*}" "$area" || continue
        parts=$(names "$area/info" "$area/remote" "$area/local" "$area/bounce" "$area/todo" "$area/intd")
        for id in $(not_in "$(names "$area/mess")" "$parts"); do
            if [ -f "mess/$((id % split))/$id" ]; then
                echo "$id" | back "$area"
            elif [ -f "mxfleet-hold/mess/$id" ]; then
                echo "$id" | across "$area" mxfleet-hold
            fi
        done
    done
    ! is_ours mxfleet-delete || {
        for kind in todo info intd bounce local remote mess; do
            find "mxfleet-delete/$kind" -type f -delete 2>/dev/null
        done
        rm -rf mxfleet-delete
    }
}

is_wanted_up() { # svstat(8): "up (pid N) S seconds" or "down S seconds, ... want up"
    status=$("$svstat" "$service" 2>&1)
    case $status in
    *": up "*"want down"*) return 1 ;;
    *": up "*) return 0 ;;
    *": down "*"want up"*) return 0 ;;
    esac
    return 1
}

start() {
    waited=0
    "$svc" -u "$service"
    until is_wanted_up; do
        [ "$waited" -lt "$1" ] || return 1
        sleep 1
        "$svc" -u "$service"
        waited=$((waited + 1))
    done
}

note() { # PHASE BEFORE: by one write over what is there, never by way of an empty file, which would say "all is well"
    printf '%s %s\n' "$1" "$2" 1<>"$state.state"
}

finish() { # SECONDS: the one way out; what it cannot start keeps its state, for whoever comes next
    read -r phase before <"$state.state"
    [ "$phase" != acting ] || { repair; note stopped "$before"; }
    exec 8>&- 7>&-
    if [ "$before" != up ] || start "$1"; then : >"$state.state"; fi
}

recover() { # SECONDS, the job lock being ours: what nobody lived to finish
    [ -s "$state.state" ] || return 0
    read -r phase before <"$state.state"
    if [ "$phase" = acting ]; then
        exec 7>>"$state.acting" 8<lock/sendmutex
        flock -w "$1" 7
        flock -w "$1" 8 || note stopped "$before"
    fi
    finish "$1"
}
COMMON
)

# shellcheck disable=SC2016 # the guardian's shell expands
guardian='
queue=$1 service=$2 svc=$3 svstat=$4
enter "$queue" || exit
echo ready || exit
exec >/dev/null 9>>"$state.lock"
flock 9
recover 60
'

fail() {
    echo "qmail_change: $2" >&2
    exit "$1"
}

lots() { # the wanted lines, and what is known of them: "ID verdict"
    awk -v by="$split" -v action="$action" '
        /^=/ { part = $2; next }
        part == "wanted" {
            id = $1; order[++count] = id; size[id] = $2; time[id] = $3
            sender[id] = substr($0, length($1) + length($2) + length($3) + 4)
            next
        }
        part == "stat" {
            parts = split($1, piece, "/"); name = piece[parts]; kind = $1
            sub("/[0-9/]*$", "", kind); sub("^.*/", "", kind)
            if (kind == "mess") { inode[name] = $2; is_size[name] = $3; is_time[name] = $4 } else has[kind, name] = 1
            next
        }
        part == "envelope" {
            if (++line % 2) { path = $0; next }
            parts = split(path, piece, "/"); name = piece[parts]
            kind = path; sub("/[0-9/]*$", "", kind); sub("^.*/", "", kind)
            if (substr($0, 1, 1) == "F" && !((kind, name) in from)) from[kind, name] = substr($0, 2)
        }
        END {
            for (at = 1; at <= count; at++) {
                id = order[at]
                source = (("todo", id) in has) ? "todo" : "info"
                if (is_size[id] != size[id] || is_time[id] != time[id] || !((source, id) in from) ||
                    from[source, id] != sender[id]) print id, "gone"
                else if (inode[id] != id) print id, "left its file has another inode"
                else if (source == "todo" && action ~ /^(try|bounce)$/) print id, "left qmail-send has not taken it in yet"
                else print id, "ok"
            }
        }'
}

examine() { # AREA or nothing: which of the wanted are there, by fingerprint
    prefix=${1:+$1/}
    candidates=$(
        for kind in mess info todo; do
            if [ -n "$prefix" ]; then lines "$ids" | sed "s|^|$prefix$kind/|"; else lines "$ids" | paths "$kind"; fi
        done
    )
    {
        echo "= wanted"
        lines "$wanted_lines"
        echo "= stat"
        lines "$candidates" | xargs -r stat -c '%n %i %s %.6Y' -- 2>/dev/null
        echo "= envelope"
        lines "$candidates" | grep -v 'mess/' | xargs -r grep -azHZs '^F' -- | tr '\000\n' '\n\001'
    } | lots
}

are_in() { # those of the IDs in $2 that are also in $1
    printf '%s\n.\n%s\n' "$1" "$2" | awk '$1 == "." { rest = 1; next } !rest { has[$1]; next } $1 in has && $1 != ""'
}

tell() { # WORDS: IDs on stdin
    sed "/^$/d; s|\$| $1|"
}

carry_out() { # AREA: moves out what is $good in the queue and what is $held, and tells what of it came there whole
    if make_area "$1"; then
        lines "$good" | out "$1"
        lines "$held" | across mxfleet-hold "$1"
    elif [ "$1" = mxfleet-delete ]; then # not even a directory can be made: that is when room is wanted most
        for kind in todo info intd bounce local remote mess; do
            lines "$good" | paths "$kind" | xargs -r rm -f --
            lines "$held" | sed "s|^|mxfleet-hold/$kind/|" | xargs -r rm -f --
        done
    fi
    left=$(still)
    repair
    not_in "$left" "$good
$held" | tell "done"
    lines "$left" | tell "left it could not be moved"
}

still() { # what of $good and $held has not left
    {
        lines "$good" | paths mess
        lines "$held" | sed 's|^|mxfleet-hold/mess/|'
    } | found
}

found() { # the names of those of the paths on stdin that exist
    xargs -r sh -c 'find "$@" -maxdepth 0 -printf "%f\n" 2>/dev/null' find
}

bring_back() { # AREA
    taken=$(for kind in mess info remote local bounce todo intd; do lines "$good" | paths "$kind"; done | found | sort -u)
    lines "$taken" | tell "left its queue ID is in use"
    good=$(not_in "$taken" "$good")
    lines "$good" | back "$1"
    stuck=$(are_in "$(names "$1")" "$good")
    lines "$stuck" | out "$1"
    lines "$stuck" | tell "left it could not be moved back"
    good=$(not_in "$stuck" "$good")
    [ "$action" != restore-try ] || due
    lines "$good" | tell "done"
    remove_empty "$1"
}

hold_again() { # AREA
    if make_area mxfleet-hold; then
        lines "$good" | across "$1" mxfleet-hold
    fi
    stuck=$(are_in "$(names "$1/mess")" "$good")
    repair
    lines "$stuck" | tell "left it could not be moved back"
    not_in "$stuck" "$good" | tell "done"
    remove_empty "$1"
}

remove_empty() { # AREA
    (cd "$1" 2>/dev/null && rmdir mess info remote local bounce todo intd 2>/dev/null)
    rmdir "$1" 2>/dev/null
    return 0
}

due() { # FURTHER_KIND...
    for kind in remote local "$@"; do
        lines "$good" | paths "$kind" | xargs -r touch -c -d @1 -- 2>/dev/null
    done
    lines "$good" | tell "done"
}

act() {
    case $action in
    release) area=mxfleet-hold ;;
    restore*) area=mxfleet-quarantine/$job ;;
    *) area= ;;
    esac
    held=
    said=$(examine "$area")
    good=$(lines "$said" | sed -n 's/ ok$//p')
    case $action in
    delete | quarantine)
        ids=$(lines "$said" | sed -n 's/ gone$//p')
        lines "$said" | grep ' left '
        wanted_lines=$(printf '%s\n.\n%s\n' "$ids" "$wanted_lines" |
            awk '$1 == "." { rest = 1; next } !rest { has[$1]; next } $1 in has')
        said=$(examine mxfleet-hold)
        held=$(lines "$said" | sed -n 's/ ok$//p')
        ;;
    esac
    lines "$said" | grep -v ' ok$'
    note acting "$was" || {
        lines "$good
$held" | tell "left the state cannot be written"
        return
    }
    case $action in
    delete) carry_out mxfleet-delete ;;
    hold) carry_out mxfleet-hold ;;
    quarantine) carry_out "mxfleet-quarantine/$job" ;;
    release | restore | restore-try) bring_back "$area" ;;
    restore-held) hold_again "$area" ;;
    try) due ;;
    bounce) due info ;;
    esac
}

stop() { # waits until qmail-send is down and its lock ours
    [ "$was" = down ] || "$svc" -d "$service"
    until [ "$(date +%s)" -ge "$deadline" ]; do
        case $("$svstat" "$service") in
        *": down "*) flock -n 8 && return 0 ;;
        esac
        sleep 0.1
    done
    return 1
}

erase() {
    area=mxfleet-quarantine/$job
    [ -d "$area" ] || return 0
    said=$(examine "$area")
    good=$(lines "$said" | sed -n -e 's/ ok$//p' -e 's/ left its file.*//p')
    lines "$said" | grep ' gone$'
    for kind in todo info intd bounce local remote mess; do
        lines "$good" | sed "s|^|$area/$kind/|" | xargs -r rm -f --
    done
    here=$(names "$area/mess")
    are_in "$here" "$good" | tell "left it could not be removed"
    not_in "$here" "$good" | tell "done"
    remove_empty "$area"
}

guard() { # SECONDS WORDS...: starts a guardian by these words; one that is ready later than that goes away again
    limit=$1
    shift
    ready=$(
        {
            setsid "$@" /bin/sh -c "$common
$guardian" qmail-guardian "$queue" "$service" "$svc" "$svstat" </dev/null 2>/dev/null 6>&- 7>&- 8>&- 9>&- &
        } | timeout "$limit" head -n 1
    )
    [ "$ready" = ready ]
}

take_job() { # SECONDS: the job lock, which a change holds from its beginning until qmail-send runs again
    exec 9>>"$state.lock" || fail 73 "cannot open $state.lock"
    flock -w "$1" 9 || fail 75 "another change is going on"
}

settle() { # says so when there was something to put right, and it is
    [ -s "$state.state" ] || return 0
    recover 10
    [ -s "$state.state" ] || echo settled
}

log_mark() {
    case $log in
    none) ;;
    *) if [ -d "$log" ]; then stat -c 'log %i %s' "$log/current"; else stat -c 'log %i %s' "$log"; fi 2>/dev/null ;;
    esac
}

status() { # waits a little for qmail-send to be up
    waited=0
    while [ "$waited" -lt 50 ]; do
        status=$("$svstat" "$service" 2>&1)
        case $was$status in
        down* | *": up "*) break ;;
        esac
        sleep 0.1
        waited=$((waited + 1))
    done
    echo "now $status"
}

[ $# -eq 7 ] && [ -n "$common" ] || fail 64 "seven arguments are needed"
eval "$common"
action=$1
queue=$2
service=$3
svc=$4
svstat=$5
log=$6
seconds=$7
case $action in
delete | hold | quarantine | release | restore | restore-try | restore-held | try | bounce | erase | look) ;;
*) fail 64 "no such action" ;;
esac
case $seconds in
'' | *[!0-9]*) fail 64 "bad seconds" ;;
esac
[ "$action" = look ] || read_fence
read -r job || fail 64 "no job"
case $job in
'' | *[!0-9A-Za-z-]*) fail 64 "bad job" ;;
esac
wanted_lines=$(cat) || fail 74 "the messages cannot be read"
case $wanted_lines in
end) wanted_lines= ;;
*"
end") wanted_lines=${wanted_lines%?end} ;;
*) fail 64 "the messages were cut off" ;;
esac
! lines "$wanted_lines" | grep -aqv '^[1-9][0-9]* [0-9][0-9]* [0-9]*\.[0-9]* ' || fail 64 "bad message"
ids=$(lines "$wanted_lines" | sed 's/ .*//')
enter "$queue" || fail 66 "no qmail queue in $queue"
[ -f lock/sendmutex ] || fail 66 "no lock/sendmutex in $queue"
if [ "$action" = look ]; then
    take_job "$seconds"
    settle
    names "mxfleet-quarantine/$job/mess" | tell there
    echo "now $("$svstat" "$service" 2>&1)"
    echo end
    exit
fi

take_job 20
check_fence
for area in mxfleet-hold mxfleet-delete mxfleet-quarantine "mxfleet-quarantine/$job"; do
    { [ ! -e "$area" ] && [ ! -L "$area" ]; } || is_ours "$area" || fail 77 "$area is not ours"
done
if [ "$action" = erase ]; then
    settle
    erase
    echo end
    exit
fi
status=$("$svstat" "$service" 2>&1)
case $status in
*": up "* | *": down "*) ;;
*) fail 69 "$status" ;;
esac
was=down
if is_wanted_up; then was=up; fi
# A state that nobody cleared: neither the shell that wrote it nor its guardian has lived. It knows what was before.
phase=
before=
[ ! -s "$state.state" ] || read -r phase before <"$state.state"
[ -z "$before" ] || was=$before
exec 8<lock/sendmutex 7>>"$state.acting"
note "${phase:-stopped}" "$was" || fail 73 "cannot write $state.state"
guardian_in=
if [ -d /run/systemd/system ]; then
    if guard 2 systemd-run --scope --quiet; then guardian_in=scope; else guardian_in=session; fi
fi
if [ "$guardian_in" != scope ] && ! guard 20; then
    [ -n "$phase" ] || : >"$state.state"
    fail 73 "no guardian could be started"
fi
settled=${phase:+settled}
deadline=$(($(date +%s) + seconds))
verdicts=stopping
mark=
if stop; then
    flock -w 15 7 || fail 75 "somebody reads the queue for too long"
    repair
    verdicts=$(act)
    mark=$(log_mark)
else
    note stopped "$was"
fi
finish 20
sync -f . 2>/dev/null
echo "was $was"
lines "$verdicts"
lines "$mark"
lines "$settled"
[ "$guardian_in" != session ] || echo "guardian session"
status
echo end
