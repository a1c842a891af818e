# shellcheck shell=sh
# shellcheck disable=SC2154 # variables of qmail_queue.sh
# Moves messages of a qmail queue between it and our areas, all $ids at once; needs pipe.sh and qmail_queue.sh. Every
# function but is_ours is false when a part of it did not end well, and what it would have done next is not done then.
#
#   is_ours DIRECTORY...  made by us, and no link that an account of qmail put in its place
#   out FROM AREA         from the queue or an area to an area
#   back AREA             into the queue
#   remove AREA           for good, from the queue or an area
#   repair                what was cut off goes to where mess/ID is; what was on its way to be deleted is deleted
#
# What activates a message (todo, info) leaves first and comes last, mess/ID leaves last and comes first, and only when
# that went well which has to be before. So where mess/ID lies tells where the rest belongs, and no half of a message is
# ever attempted.
PARTS='todo info intd bounce local remote'

is_ours() {
    for each; do
        # shellcheck disable=SC3067 # dash, bash, ksh and busybox have -O
        [ -d "$each" ] && [ ! -L "$each" ] && [ -O "$each" ] || return
    done
}

move() ( # FROM TO KIND...: a name that is taken stays where it is. A shell of its own, for what it sets
    # shellcheck disable=SC2034 # of what is there
    area=$1
    to=$2
    shift 2
    for kinds; do
        place "$to" "$kinds"
        if [ -z "$by" ]; then
            found=$(there) || exit
            in_lots "$found" 1 put "$base" || exit
        else
            found=$(both there by_directory) || exit
            in_lots "$found" 1 put || exit
        fi
    done
)

put() { # DIRECTORY PATH...
    directory=$1
    shift
    mv -n -t "$directory" -- "$@" 2>/dev/null # 1: some name was taken, or there is no room; who moved on looks
}

by_directory() { # "DIRECTORY PATH...", a line for each lot
    # shellcheck disable=SC2154 # by qmail_queue.sh
    awk -v base="$base" -v by="$by" -v most="$LOT" "$remainder"'
        {
            for (at = 1; at <= NF; at++) {
                name = $at
                sub("^.*/", "", name)
                number = remainder(name, by)
                lot[number] = lot[number] " " $at
                if (++count[number] % most == 0) { print base number lot[number]; lot[number] = "" }
            }
        }
        END { for (number in lot) if (lot[number] != "") print base number lot[number] }'
}

make_young() { # AREA: what lies in mess/ without info/ and was not read for 36 hours, qmail-send removes
    with_files "$1" mess 0 touch -a -c --
}

out() {
    # shellcheck disable=SC2086 # words of ours
    make_young "$1" && move "$1" "$2" $PARTS || return
    # shellcheck disable=SC2086
    keep_without "$1" $PARTS
    move "$1" "$2" mess
}

back() { # what cannot come whole goes out again
    wanted=$ids
    make_young "$1" && move "$1" . mess || return
    keep_without "$1" mess
    move "$1" . remote local bounce intd || return
    keep_without "$1" remote local bounce intd
    move "$1" . info todo || return
    stuck=
    for part in $PARTS; do
        ids=$wanted
        find_having "$1" "$part"
        for id in $having; do # what is in both places is of another time
            has_any . "$id" "$part" || stuck="$stuck $id"
        done
    done
    ids=$stuck
    out . "$1"
}

remove() {
    with_files "$1" "$PARTS" 1 rm -f -- || return
    # shellcheck disable=SC2086
    keep_without "$1" $PARTS
    with_files "$1" mess 1 rm -f --
}

repair() ( # a shell of its own: $ids stay
    strays=$(find_strays) || exit
    IFS='
'
    for line in $strays; do
        unset IFS
        # shellcheck disable=SC2086
        rejoin $line || exit
    done
    unset IFS
    ! is_ours mxfleet-delete || clear_deleted
)

rejoin() { # AREA PLACE ID...: what lies in AREA of messages whose mess/ID is in that place
    stray_in=$1
    whole_in=$2
    shift 2
    ids=$*
    if [ "$whole_in" != . ]; then
        ! is_ours "$stray_in" "$whole_in" || out "$stray_in" "$whole_in"
        return
    fi
    find_having . mess
    ids=$having
    ! is_ours "$stray_in" || back "$stray_in"
}

find_strays() { # "AREA PLACE ID..." for files of messages whose mess/ID is in another area, or in none: "." then
    tops=
    for top in mxfleet-hold mxfleet-delete mxfleet-quarantine; do
        ! is_ours "$top" || tops="$tops $top"
    done
    [ -z "$tops" ] || both files_of_areas without_mess
}

files_of_areas() {
    # shellcheck disable=SC2086
    find $tops -mindepth 2 -maxdepth 3 -type f -name '[1-9]*' ! -name '*[!0-9]*'
}

without_mess() {
    awk -F / -v kinds=" mess $PARTS " '
        !index(kinds, " " $(NF - 1) " ") { next }
        { area = $0; sub("/[^/]*/[^/]*$", "", area) }
        $(NF - 1) == "mess" { has[area, $NF]; whole[$NF] = area; next }
        { part[area, $NF] }
        END {
            for (each in part) if (!(each in has)) {
                split(each, word, SUBSEP)
                way = word[1] " " ((word[2] in whole) ? whole[word[2]] : ".")
                list[way] = list[way] " " word[2]
            }
            for (way in list) print way list[way]
        }'
}

clear_deleted() { # mess/ last: else a part that is left could pass for one of a new message with the same number
    for kind in $PARTS; do
        rm -rf "mxfleet-delete/$kind" || return
    done
    rm -rf mxfleet-delete
}
