# shellcheck shell=sh
# shellcheck disable=SC2154 # sendmail_change.sh sets them
# sendmail_change.sh's delete, out, back and erase: the files of the messages in $work/mine, and what lies in
# mxfleet-quarantine/JOB. A queue file goes first from where it is not needed any more, and comes last to where it is: so
# none ever stands where Sendmail looks, or where we bring it back from, without its data.

files_of() { # DIRECTORY KIND...: sets files to those of $work/mine that are there, sorts of kinds as in the file's name
    where=$1
    shift
    files=
    while read -r id; do
        for kind; do
            [ ! -e "$where/$kind$id" ] || files="$files $where/$kind$id"
        done
    done <"$work/mine"
}

on_files() { # COMMAND...: with $files; what it could not do is seen by looking, but not what it may still do
    # shellcheck disable=SC2086 # names without blanks
    [ -z "$files" ] || "$@" $files || [ $? -lt 126 ] || fail 70 "$1 was ended by a signal"
}

flush() { # DIRECTORY...
    sync "$@" 2>/dev/null || sync || fail 74 "what was changed could not be written to disk"
}

has() { [ -e "$1/qf$2" ] || [ -e "$1/hf$2" ]; } # DIRECTORY ID: a queue file

keep() { # COMMAND...: of $work/mine those for which it is true
    while read -r id; do
        if "$@"; then echo "$id"; fi
    done <"$work/mine" >"$work/kept"
    mv -f "$work/kept" "$work/mine" || fail 74 "cannot write"
}

tell_moved() { # FILE of IDs: by what is left where they were
    while read -r id; do
        if [ -e "$queue/${letter}f$id" ] || [ -e "$data/df$id" ]; then say failed "$id"; else say "done" "$id"; fi
    done <"$1"
}

has_left() { [ ! -e "$queue/${letter}f$id" ]; }

change_delete() {
    sure cp "$work/mine" "$work/all"
    files_of "$queue" "${letter}f"
    on_files rm -f --
    flush "$queue"
    # The data of a queue file that is there still is all that is left of a message.
    keep has_left
    files_of "$data" df
    on_files rm -f --
    flush "$data"
    tell_moved "$work/all"
}

has_data() { # of $id
    [ ! -e "$data/df$id" ] || return 0
    say bare "$id" >>"$work/told"
    return 1
}

change_out() {
    make_ours mxfleet-quarantine
    make_ours "$job"
    if ! same_system "$queue" "$data" .; then
        while read -r id; do say foreign "$id"; done <"$work/mine"
        return
    fi
    keep has_data
    sure cp "$work/mine" "$work/all"
    files_of "$queue" "${letter}f"
    on_files mv -n -t . --
    flush "$queue" .
    keep has_left
    files_of "$data" df
    on_files mv -n -t . --
    flush "$data" .
    tell_moved "$work/all"
}

go_to_quarantine() { # DIRECTORY: false when it has none of this job; $work/mine are all that are wanted
    open_queue "$1"
    [ -d "mxfleet-quarantine/$job" ] || return
    enter mxfleet-quarantine
    enter "$job"
    sure cut -d ' ' -f 1 "$work/wanted" >"$work/mine"
}

leave_empty() {
    cd -P "$base" && rmdir "mxfleet-quarantine/$job" mxfleet-quarantine 2>/dev/null
}

is_to_come_back() { has . "$id" && ! has "$queue" "$id"; }

is_whole_there() { # it has its data where it goes, now or already since an `out` or a `back` was cut off
    [ ! -e "./df$id" ] && has_data
}

back() {
    for directory in $found; do
        go_to_quarantine "$directory" || continue
        same_system "$queue" "$data" . || fail 75 "another file system"
        keep is_to_come_back
        files_of . df
        on_files mv -n -t "$data" --
        flush "$data" .
        keep is_whole_there
        files_of . qf hf
        on_files mv -n -t "$queue" --
        flush "$queue" .
        leave_empty
    done
    tell
}

is_torn() { has . "$id" && [ ! -e "./df$id" ] && ! has "$queue" "$id"; }

is_only_data() { ! has . "$id"; }

erase() {
    for directory in $found; do
        go_to_quarantine "$directory" || continue
        # Data that a cut-off `out` or `back` left in the queue directory belong to the queue file here.
        keep is_torn
        files_of "$data" df
        # shellcheck disable=SC2086 # names without blanks
        [ -z "$files" ] || mv -n -t . -- $files || fail 74 "data could not be moved"
        flush "$data" .
        sure cut -d ' ' -f 1 "$work/wanted" >"$work/mine"
        files_of . qf hf
        on_files rm -f --
        flush .
        keep is_only_data
        files_of . df
        on_files rm -f --
        flush .
        leave_empty
    done
}

quarantined() { # "in ID DIRECTORY FILE"
    for directory in $found; do
        there=$directory/mxfleet-quarantine/$job
        [ ! -d "$there" ] ||
            sure search "$there" -maxdepth 1 -type f -name '[qhd]f*' ! -name '*[!0-9A-Za-z]*' -printf "in %f $directory\n"
    done | sure sed 's/^in \([qhd]\)f\([0-9A-Za-z]*\) \(.*\)$/in \2 \3 \1/'
}
