# shellcheck shell=sh
# How a script changes a file in a directory where others may write: Debian's /etc/mail is of Sendmail's group, and the
# account of a control panel may own the directory of a map. Needs enter.sh, exchange.sh, and a function fail STATUS WORDS.
#
#   take_lock NAME    one run at a time, on descriptor 9
#   go_to_file FILE   goes to the directory of a file, whose name there is $name, as go_to does
#   content, digest   its bytes, sha256 of them or - without a file
#   state SUFFIX      fits, stale (newer than the map of that suffix, which is built of it, or gone while that is there) or
#                     absent
#   open_work         puts right what a cut-off run left, and enters a new directory of our own beside $name
#
# In there `../$name` is the file, whatever happens to names above, and nobody can guess or exchange a name of ours.
# SUFFIX is "" for the file, or that of its map:
#
#   take SUFFIX       was: a copy of what stands there, with owner, mode, ACL, attributes; none when there is nothing
#   dress SUFFIX      gives new, which the script has written, what was has, besides the bytes and the times
#   mark SUFFIX       new is finished: it becomes hand, and is known as ours
#   trade SUFFIX EXPECTED GIVEN   hand goes there, or nothing when there is no hand, and what stood there comes to hand.
#                     It must be EXPECTED (was, ours) by inode and digest; else it goes back, and the answer is false
#   take_planned DIGEST SUFFIX   takes the file, which must have that digest, and its map
#   swap SUFFIX       trades was for ours, map and file or neither
#   close_work        keeps what is in hand and not ours beside the file, the five latest; run whenever a script ends
# shellcheck disable=SC2154 # $name is the script's
# shellcheck disable=SC3013 # every sh that Debian may have knows -nt, and POSIX has nothing that compares times
work=

go_to_file() {
    go_to "${1%/*}/"
    [ ! -L "./$name" ] || fail 66 "$1 is a symbolic link"
    [ ! -e "./$name" ] || [ -f "./$name" ] || fail 66 "$1 is no file"
}

take_lock() { # who can open a lock's file can hold it
    mkdir -m 700 /run/mxfleet-locks 2>/dev/null
    exec 9>>"/run/mxfleet-locks/$1" || fail 73 "cannot lock"
    flock -w 20 9 || fail 75 "another change is running"
}

bytes() { dd if="$1" iflag=nofollow,nonblock bs=65536 status=none; }

content() { bytes "./$name"; }

sum() { bytes "$1" | sha256sum | cut -d ' ' -f 1; }

is_there() { [ -e "./$name" ] || [ -L "./$name" ]; }

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
identity() { # FILE: of a regular one
    [ -f "$1" ] && [ ! -L "$1" ] && echo "$(stat -c %d:%i -- "$1") $(sum "$1")"
}

is() { # FILE NAME: that file, with the bytes that it had
    [ -s "$2.id" ] && identity "$1" | cmp -s - "$2.id"
}

open_work() {
    for left in "$name".mxfleet-work.* "$name".mxfleet-new*; do
        if [ -d "$left" ] && [ ! -L "$left" ]; then
            (enter "$left" && [ "$(cat made)" = "$(stat -c %d:%i .)" ] && settle && find . -mindepth 1 -delete) 2>/dev/null
            rmdir "./$left" 2>/dev/null
        else
            rm -f -- "./$left"
        fi
    done
    made=$(mktemp -d "./$name.mxfleet-work.XXXXXX") || fail 73 "cannot write beside $name"
    enter "$made"
    # Somebody could have put another directory of root's there, and at the end we delete what is in it.
    [ -z "$(ls -A)" ] || fail 77 "$made is not ours"
    stat -c %d:%i . | cat >made || fail 73 "cannot write beside $name"
    work=$made
    trap close_work EXIT
    trap 'exit 73' HUP INT TERM
    find_exchange || fail 73 "cannot write beside $name"
}

settle() { # in what a cut-off run left: what had come to hand and is neither ours nor was is somebody's edit
    find_exchange
    for left in hand*; do
        suffix=${left#hand}
        if is "$left" "ours$suffix" || is "$left" "was$suffix"; then
            continue
        elif [ ! -e "ours$suffix.id" ]; then
            mv -nT -- "$left" "../$name$suffix"
        elif is "../$name$suffix" "ours$suffix"; then
            exchange "$left" "../$name$suffix"
        fi
    done
    keep
}

take() {
    [ -e "../$name$1" ] || [ -L "../$name$1" ] || return 0
    ln -PT -- "../$name$1" "pin$1" || fail 73 "cannot make a second name of $name$1"
    identity "pin$1" | cat >"was$1.id" || fail 73 "cannot write beside $name"
    [ -s "was$1.id" ] || fail 66 "$name$1 is no file"
    cp -p --preserve=all "pin$1" "was$1" || fail 73 "cannot write beside $name"
    rm -f "pin$1"
    [ "$(sum "was$1")" = "$(cut -d ' ' -f 2 "was$1.id")" ] || fail 76 "$file$1 was changed meanwhile"
}

take_planned() {
    take ''
    [ "$(if [ -e was ]; then sum was; else echo -; fi)" = "$1" ] || fail 76 "$file was changed meanwhile"
    [ -z "$2" ] || take "$2"
}

dress() {
    [ ! -e "was$1" ] || { cp --attributes-only --preserve=all "was$1" "new$1" && touch "new$1"; } ||
        fail 73 "cannot give $name$1 its owner and mode"
}

mark() {
    identity "new$1" | cat >"ours$1.id" && sync "new$1" "ours$1.id" && mv -T "new$1" "hand$1" ||
        fail 73 "cannot write beside $name"
}

trade() {
    if [ ! -e "$2$1.id" ]; then
        ln -PT -- "hand$1" "../$name$1" 2>/dev/null && rm -f "hand$1"
        return
    fi
    if [ ! -e "hand$1" ]; then
        mv -T -- "../$name$1" "hand$1"
    else
        exchange "hand$1" "../$name$1"
    fi || { [ ! -e "../$name$1" ] || fail 73 "cannot rename $name$1"; return 1; }
    ! is "hand$1" "$2$1" || return 0
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
    [ -z "$1" ] || trade "$1" was ours || fail 76 "$file$1 was changed meanwhile"
    trade '' was ours || {
        [ -z "$1" ] || trade "$1" ours was
        fail 76 "$file was changed meanwhile"
    }
    sync ..
}

keep() { # the old file itself: what a program still writes into it is not lost
    [ -f hand ] && [ ! -L hand ] && ! is hand ours || return 0
    ln -PT -- hand "../$name.mxfleet-$(date -u +%Y%m%d%H%M%S)-$$"
    set -- "../$name".mxfleet-[0-9]*
    while [ $# -gt 5 ]; do
        rm -f -- "$1"
        shift
    done
}

close_work() {
    [ -n "$work" ] || return 0
    keep
    find . -mindepth 1 -delete
    rmdir "../$work"
}
