# shellcheck shell=sh
# How a script changes a file in a directory where others may write: Debian's /etc/mail is of Sendmail's group, and the
# account of a control panel may own the directory of a map. Needs enter.sh, exchange.sh, and a function fail STATUS WORDS.
#
#   asks COMMAND...   whether it says yes. A status other than 0 and 1 is no answer: it ends the script with 70
#   is_rootly FILE    whether it is root's and nobody else may write it; of a configuration it is asked before we act upon it
#   take_lock NAME    one run at a time, on descriptor 9, until the script ends
#   go_to_file FILE   goes to the directory of a file, whose name there is $name, as go_to does
#   put_right NAME    under that lock, settles what runs left that were cut off, and is true when there were any; the
#                     answers below are those of a change that was made as a whole, or of none. Ends with 74 when it cannot
#   content, digest   its bytes, sha256 of them or - without a file
#   state SUFFIX      fits, stale (newer than the map of that suffix, which is built of it, or gone while that is there) or
#                     absent
#   open_work         enters a new directory of our own beside $name
#
# In there `../$name` is the file, whatever happens to names above, and nobody can guess or exchange a name of ours.
# SUFFIX is "" for the file, or that of its map:
#
#   take SUFFIX       was: a copy of what stands there, with owner, mode, ACL, attributes; none when there is nothing
#   dress SUFFIX      gives new, which the script has written, what was has, besides the bytes and the times
#   mark SUFFIX       new is finished: it becomes hand, and is known as ours
#   trade SUFFIX EXPECTED GIVEN   hand goes there, or nothing when there is no hand, and what stood there comes to hand.
#                     It must be EXPECTED (was, ours) by inode and digest; else it goes back, and the answer is false
#   read_checks NUMBER   $checks: so many lines of stdin, what a new map must give; $gone of them have no value
#   take_planned DIGEST SUFFIX   takes the file, which must have that digest, and its map
#   swap SUFFIX       trades was for ours, map and file or neither. From there on no signal ends the script but KILL
#   take_back SUFFIX  trades them again after a swap; $told says whether the old one is back
#   close_work        settles and ends the work, whenever a script ends. What it cannot settle stays there, and it says so
#
# To settle: what somebody else wrote goes back, a map that was traded without its file too, and the old file becomes a
# backup beside, of which the five latest are kept.
# shellcheck disable=SC2034,SC2154 # $name and $tab are the script's, $told, $checks and $gone are for it
# shellcheck disable=SC3013 # every sh that Debian may have knows -nt, and POSIX has nothing that compares times
work=
locked=

asks() { "$@" || is_no $?; }

is_no() { # STATUS of a part of this
    [ "$1" -eq 1 ] || fail 70 "a part of it failed, or was ended by a signal"
    return 1
}

is_rootly() {
    rootly=$(find -H "$1" -prune -user root ! -perm /022) || is_no $? || return
    [ -n "$rootly" ]
}

go_to_file() {
    go_to "${1%/*}/"
    [ ! -L "./$name" ] || fail 66 "$1 is a symbolic link"
    [ ! -e "./$name" ] || [ -f "./$name" ] || fail 66 "$1 is no file"
}

take_lock() { # who can open a lock's file can hold it
    [ -z "$locked" ] || return 0
    mkdir -m 700 /run/mxfleet-locks 2>/dev/null
    exec 9>>"/run/mxfleet-locks/$1" || fail 73 "cannot lock"
    flock -w 20 9 || fail 75 "another change is running"
    locked=yes
}

exists() { [ -e "$1" ] || [ -L "$1" ]; }

is_file() { [ -f "$1" ] && [ ! -L "$1" ]; }

is_there() { exists "./$name"; }

bytes() { dd if="$1" iflag=nofollow,nonblock bs=65536 status=none; }

content() { bytes "./$name"; }

sum() { # false when a part of it failed, or was ended by a signal
    set -- "$({ { bytes "$1" && echo whole >&3; } | sha256sum; } 3>&1)"
    case $1 in
    'whole
'*' '*) ;;
    *) return 1 ;;
    esac
    set -- "${1#*
}"
    echo "${1%% *}"
}

digest() { if is_there; then sum "./$name"; else echo -; fi; }

state() {
    if ! is_there; then
        if [ -n "$1" ] && [ -e "./$name$1" ]; then echo stale; else echo absent; fi
    elif [ -n "$1" ] && { [ ! -e "./$name$1" ] || [ "./$name" -nt "./$name$1" ]; }; then
        echo stale
    else
        echo fits
    fi
}

# What goes through cat tells in its words that the disk is full.
identity() { # FILE: of a regular one, nothing for another; false when it cannot be told
    is_file "$1" || return 0
    inode=$(stat -c %d:%i -- "$1") && sha256=$(sum "$1") && echo "$inode $sha256"
}

is() { # FILE NAME: that file, with the bytes that it had; 2 when it cannot be told
    [ -s "$2.id" ] || return 1
    seen=$(identity "$1") || return 2
    IFS= read -r expected <"$2.id" && [ "$seen" = "$expected" ]
}

put_right() {
    is_left=
    [ -w . ] || return
    for each in "$name".mxfleet-work.*; do
        [ -d "$each" ] && [ ! -L "$each" ] || continue
        take_lock "$1"
        [ -d "$each" ] || continue # it was of a run that has ended now
        (enter "$each" 2>/dev/null && is_marked && end_work)
        case $? in
        0) is_left=yes ;;
        74) fail 74 "what a change that was cut off left in $each cannot be put right" ;;
        esac
        rmdir "$each" 2>/dev/null # also one that was cut off before it was marked
    done
    [ -n "$is_left" ]
}

is_marked() { # as the work of a run of ours; a link is made as a whole
    [ -L made ] || return
    marked=$(readlink made) && here=$(stat -c %d:%i .) || exit 74
    [ "$marked" = "$here" ]
}

end_work() { (settle && find . -mindepth 1 -delete) || return 74; }

open_work() {
    made=$(mktemp -d "./$name.mxfleet-work.XXXXXX") || fail 73 "cannot write beside $name"
    enter "$made"
    # Somebody could have put another directory of root's there, and at the end we delete what is in it.
    there=$(ls -A) && [ -z "$there" ] || fail 77 "$made is not ours"
    here=$(stat -c %d:%i .) && ln -s "$here" made || fail 73 "cannot write beside $name"
    work=$made
    trap close_work EXIT
    trap 'exit 73' HUP INT TERM
    find_exchange || fail 73 "cannot write beside $name"
}

close_work() {
    set -- $?
    [ -n "$work" ] || return 0
    trap '' HUP INT TERM
    if end_work; then
        rmdir "../$work" 2>/dev/null
    else
        echo "mxfleet: not all that was taken from $name could be put where it belongs; it is in $work, beside it" >&2
        [ "$1" -eq 0 ] || exit 74
    fi
}

settle() {
    [ -n "$exchange_by" ] || find_exchange || return
    [ -e whole ] || undo_half
    # What is not in hand any more cannot be told from what was never there, so the file goes last.
    for each in .db .lmdb .cdb ''; do let_go "$each" || return; done
}

undo_half() {
    for each in '' .db .lmdb .cdb; do
        end_steps "$each"
        return_theirs "$each"
    done
    for each in .db .lmdb .cdb; do ! is_half "$each" || trade "$each" ours was; done
}

is_known() { # as `is`, where nothing may be done on a guess
    is "$1" "$2"
    set -- "$1" $?
    [ "$2" -lt 2 ] || fail 74 "cannot read $1"
    return "$2"
}

end_steps() { # SUFFIX: the second of two, where one was cut off
    if exists "hand$1.aside" && ! exists "hand$1"; then mv -T "hand$1.aside" "hand$1"; fi
    ! exists "hand$1.aside" || rm -f "hand$1.aside"
}

return_theirs() { # SUFFIX
    exists "hand$1" || return 0
    ! is_known "hand$1" "ours$1" && ! is_known "hand$1" "was$1" || return 0
    if [ ! -e "ours$1.id" ]; then
        mv -nT -- "hand$1" "../$name$1"
    elif is_known "../$name$1" "ours$1"; then
        identity "hand$1" | cat >"theirs$1.id"
        trade "$1" ours theirs
    fi
}

is_half() { # SUFFIX of a map: it was put there or taken away, and the file was not
    if [ -e "ours$1.id" ]; then
        is_known hand ours && is_known "../$name$1" "ours$1"
    else
        exists "hand$1" && ! exists hand
    fi
}

let_go() { # SUFFIX
    exists "hand$1" || return 0
    if is_known "hand$1" "ours$1" || { [ -n "$1" ] && is_known "hand$1" "was$1"; }; then
        rm -f "hand$1"
    else
        put_beside "$1" && forget_oldest
    fi
}

put_beside() { # SUFFIX: the old file itself: what a program still writes into it is not lost
    now=$(date -u +%Y%m%d%H%M%S) || return
    for number in '' .1 .2 .3 .4 .5 .6 .7 .8 .9; do
        mv -nT -- "hand$1" "../$name$1.mxfleet-$now-$$$number"
        exists "hand$1" || return 0
    done
    return 1
}

forget_oldest() {
    set --
    for old in "../$name".mxfleet-[0-9]*; do
        ! is_file "$old" || set -- "$@" "$old"
    done
    while [ $# -gt 5 ]; do
        rm -f -- "$1"
        shift
    done
}

take() { # sets $copied: the digest, - without a file
    copied=-
    exists "../$name$1" || return 0
    is_file "../$name$1" || fail 66 "$name$1 is no file"
    # Never a second name: Sendmail does not open a map that has one. Nothing else can have that inode and these bytes.
    inode=$(stat -c %d:%i -- "../$name$1") && cp -RPp --preserve=all -- "../$name$1" "was$1" ||
        fail 73 "cannot write beside $name"
    is_file "was$1" || fail 76 "$file$1 was changed meanwhile"
    copied=$(sum "was$1") && echo "$inode $copied" | cat >"was$1.id" || fail 73 "cannot write beside $name"
}

read_checks() {
    checks='' gone=0 number=$1
    while [ "$number" -gt 0 ] && IFS= read -r line; do
        checks=$checks${checks:+
}$line
        case $line in *"$tab") gone=$((gone + 1)) ;; esac
        number=$((number - 1))
    done
}

take_planned() {
    take ''
    [ "$copied" = "$1" ] || fail 76 "$file was changed meanwhile"
    [ -z "$2" ] || take "$2"
}

dress() {
    [ ! -e "was$1" ] || { cp --attributes-only --preserve=all "was$1" "new$1" && touch "new$1"; } ||
        fail 73 "cannot give $name$1 its owner and mode"
}

mark() {
    identity "new$1" | cat >"ours$1.id"
    [ -s "ours$1.id" ] && sync "new$1" "ours$1.id" && mv -T "new$1" "hand$1" || fail 73 "cannot write beside $name"
}

trade() {
    if [ ! -e "$2$1.id" ]; then
        mv -nT -- "hand$1" "../$name$1"
        exists "hand$1" || return 0
        exists "../$name$1" || fail 73 "cannot put $name$1 there"
        return 1
    fi
    # Whatever its status says: a program can be ended when it has done its work.
    if exists "hand$1"; then exchange "hand$1" "../$name$1"; else mv -T -- "../$name$1" "hand$1"; fi
    traded=$?
    ! is "hand$1" "$2$1" || return 0
    [ "$traded" -eq 0 ] || { ! exists "../$name$1" || fail 73 "cannot rename $name$1"; return 1; }
    if [ ! -e "$3$1.id" ]; then
        mv -nT -- "hand$1" "../$name$1"
    else
        give_back "$1" "$3"
    fi
    return 1
}

give_back() { # SUFFIX GIVEN: hand goes there for GIVEN. What comes out instead was written since, so it stays
    there=$2
    for other in back again back again back again back; do
        identity "hand$1" | cat >"$other$1.id"
        exchange "hand$1" "../$name$1"
        ! is "hand$1" "$there$1" || return 0
        there=$other
    done
}

swap() {
    # What a signal cut off behind the trade would be told to nobody: neither a check, nor the MTA.
    trap '' HUP INT TERM
    [ -z "$1" ] || trade "$1" was ours || fail 76 "$file$1 was changed meanwhile"
    trade '' was ours || fail 76 "$file was changed meanwhile"
    : >whole # what is written into the old ones from here on is for the backup
    sync ..
}

take_back() {
    rm -f whole
    told="it was changed meanwhile, so the old one is not back"
    trade '' ours was && { [ -z "$1" ] || trade "$1" ours was; } && told="the old one is back"
}
