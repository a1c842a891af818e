# shellcheck shell=sh
# shellcheck disable=SC2154 # variables of qmail_change.sh and of its other parts
# What a change of a qmail queue does while qmail-send is down. Needs the other parts of qmail_change.sh.
#
#   act     does it, and tells of each message what came of it by where its files are then. False when a part of it did
#           not end well; what was told is void then, and `finish` puts right what was cut off
#   erase   the same for messages in quarantine, beside qmail-send
act() {
    note acting "$was" || {
        for id in $ids; do echo "$id left the state cannot be written"; done
        return 0
    }
    repair || return
    case $action in
    delete | quarantine) said=$(examine . mxfleet-hold) ;;
    release) said=$(examine mxfleet-hold) ;;
    restore*) said=$(examine "mxfleet-quarantine/$job") ;;
    *) said=$(examine .) ;;
    esac || return
    sort_out "$said"
    case $action in
    delete) carry_out mxfleet-delete ;;
    hold) carry_out mxfleet-hold ;;
    quarantine) carry_out "mxfleet-quarantine/$job" ;;
    release) bring_back mxfleet-hold ;;
    restore | restore-try) bring_back "mxfleet-quarantine/$job" ;;
    restore-held) hold_again "mxfleet-quarantine/$job" ;;
    try) make_due "remote local" ;;
    bounce) make_due "remote local info" ;;
    esac
}

tell_left() { # AREA IDS WHY: done is what has left it
    place "$1" mess
    for id in $2; do
        if [ -e "$base${by:+$((id % by))/}$id" ]; then echo "$id left $3"; else echo "$id done"; fi
    done
}

make_area() { # AREA: 1 when it cannot be made, 2 when a part of this did not end well
    mkdir -p "$1/mess" "$1/info" "$1/remote" "$1/local" "$1/bounce" "$1/todo" "$1/intd" 2>/dev/null
    case $? in
    0) ;;
    1) return 1 ;;
    *) return 2 ;;
    esac
    is_ours "${1%/*}" "$1" || return 1
    systems=$(stat -c %d mess/0 "$1/mess") || return 2
    [ "${systems%%[!0-9]*}" = "${systems##*[!0-9]}" ]
}

carry_out() { # AREA: moves there what is $good in the queue and what is $held
    make_area "$1"
    case $? in
    0)
        ids=$good
        out . "$1" || return
        ids=$held
        out mxfleet-hold "$1" || return
        ;;
    1)
        [ "$1" != mxfleet-delete ] || delete_in_place || return
        ;;
    *) return 1 ;;
    esac
    put_right . "$good" && put_right mxfleet-hold "$held" || return
    tell_left . "$good" "it could not be moved"
    tell_left mxfleet-hold "$held" "it could not be moved"
}

# shellcheck disable=SC2034 # of what is there
put_right() { # AREA IDS: where one of them stayed, its parts may have gone
    area=$1
    ids=$2
    kinds=mess
    stays=$(there) || return
    [ -z "$stays" ] || repair
}

delete_in_place() { # not even a directory can be made: that is when room is wanted most
    ids=$good
    remove . || return
    ids=$held
    remove mxfleet-hold
}

bring_back() { # AREA
    ids=$good
    # shellcheck disable=SC2086 # words of ours
    keep_without . mess $PARTS
    for id in $having; do echo "$id left its queue ID is in use"; done
    good=$ids
    back "$1" || return
    if [ "$action" = restore-try ]; then
        ids=$good
        keep_without "$1" mess
        with_files . "remote local" 0 touch -c -d @1 -- || return
    fi
    tell_left "$1" "$good" "it could not be moved back"
    remove_empty "$1"
}

hold_again() { # AREA
    make_area mxfleet-hold
    case $? in
    0)
        ids=$good
        out "$1" mxfleet-hold || return
        ;;
    1) ;;
    *) return 1 ;;
    esac
    put_right "$1" "$good" || return
    tell_left "$1" "$good" "it could not be moved back"
    remove_empty "$1"
}

make_due() { # KINDS
    ids=$good
    with_files . "$1" 0 touch -c -d @1 -- || return
    for id in $good; do echo "$id done"; done
}

remove_empty() { # AREA
    (cd "$1" 2>/dev/null && rmdir mess info remote local bounce todo intd 2>/dev/null)
    rmdir "$1" 2>/dev/null
    return 0
}

erase() {
    [ -d "mxfleet-quarantine/$job" ] || return 0
    said=$(examine "mxfleet-quarantine/$job") || return
    sort_out "$said"
    ids=$good
    # A restore of what was on hold that was cut off, with nobody to put it right yet, has the rest of it there.
    # shellcheck disable=SC2086 # words of ours
    keep_without mxfleet-hold $PARTS
    remove "mxfleet-quarantine/$job" || return
    tell_left "mxfleet-quarantine/$job" "$good" "it could not be removed"
    remove_empty "mxfleet-quarantine/$job"
}
