# shellcheck shell=sh
#
# What opensmtpd_quarantine.sh shares with its guard, which is a shell of its own; both stand in the spool directory.
# `settle` makes both places of every message whole again.
# shellcheck disable=SC2016
shared='
    is_queued() { # ID: smtpd may leave an empty directory
        set -- "queue/${1%??????}/$1/$1"????????
        [ -e "$1" ]
    }

    control() { timeout -k 1 20 "$smtpctl" "$@" </dev/null >/dev/null 2>&1; }

    is_plain() { # ID: smtpd could have planted links in its queue
        [ ! -L "queue/${1%??????}" ] && [ ! -L "queue/${1%??????}/$1" ]
    }

    come_back() { # DIRECTORY ID: in the queue and paused as it was, before smtpd can open the message file
        home=queue/${2%??????}/$2
        if [ -d "$1/$2" ]; then # it did not get there
            [ ! -e "$1/$2.back" ] || mv -n -T "$1/$2.back" "$1/$2/message" || return
            mv -T "$1/$2.coming" "$1/$2.ready"
            return
        fi
        if [ ! -d "$home" ]; then
            [ -e "$1/$2.back" ] || rm -f "$1/$2.coming"
            return
        fi
        control discover "$2" || return
        if [ -s "$1/$2.coming" ]; then
            set -- "$1" "$2" "$home/$2"????????
            if [ "$(($# - 2))" -eq "$(wc -l <"$1/$2.coming")" ]; then
                control pause envelope "$2" || return
            else
                while read -r envelope; do control pause envelope "$envelope" || return; done <"$1/$2.coming"
            fi
            [ ! -e "$1/$2.back" ] || await_pause "$1" "$2"
        fi
        [ ! -e "$1/$2.back" ] || mv -n -T "$1/$2.back" "$home/message"
        [ ! -e "$1/$2.back" ] && rm -f "$1/$2.coming"
    }

    await_pause() { # DIRECTORY ID: until no attempt without the file runs any more
        for try in 1 2 3 4 5; do
            timeout -k 1 20 "$smtpctl" show queue "$2" 2>/dev/null |
                grep -a "^$2" | grep -Ff "$1/$2.coming" | grep -qaE "\|inflight\|-?[0-9]+\|" || return 0
            sleep 1
        done
    }

    await_removal() { # IDs on stdin: smtpd has said "removed" before it removes the files; five seconds in all
        waited=0
        while read -r id; do
            while is_queued "$id"; do
                [ "$waited" -lt 100 ] || return 0
                sleep 0.05
                waited=$((waited + 1))
            done
        done
    }

    settle() { # makes both places of every message whole again
        for mark in mxfleet-quarantine/*/*.erasing; do
            [ ! -e "$mark" ] || { rm -rf "${mark%.erasing}" && rm -f "$mark"; }
        done
        for message in mxfleet-quarantine/*/*/message; do
            [ -e "$message" ] || continue
            copy=${message%/message}
            [ ! -e "$copy.erasing" ] || continue
            id=${copy##*/}
            home=queue/${id%??????}/$id
            if [ ! -e "$copy.ready" ] && [ ! -e "$copy.coming" ] && [ -d "$home" ] && is_plain "$id"; then
                mv -n -T "$message" "$home/message"
            fi
        done
        for mark in mxfleet-quarantine/*/*.coming; do
            [ -e "$mark" ] || continue
            id=${mark##*/}
            id=${id%.coming}
            ! is_plain "$id" || come_back "${mark%/*}" "$id"
        done
        removed=
        for ready in mxfleet-quarantine/*/*.ready; do
            [ -e "$ready" ] || continue
            copy=${ready%.ready}
            id=${copy##*/}
            home=queue/${id%??????}/$id
            if [ -e "$copy/message" ] && [ -d "$home" ] && [ ! -e "$home/message" ]; then
                control remove "$id" # false as well where that was said of it before
                removed="$removed $id"
            fi
        done
        [ -z "$removed" ] || printf "%s\n" $removed | await_removal
        for ready in mxfleet-quarantine/deleting-*/*.ready; do
            copy=${ready%.ready}
            id=${copy##*/}
            # What this run removes itself is told first.
            if [ -e "$ready" ] && [ "${ready%/*}" != "${mine:-}" ] && [ ! -d "queue/${id%??????}/$id" ]; then
                mv -T "$ready" "$copy.erasing" && rm -rf "$copy" && rm -f "$copy.erasing"
            fi
        done
        # Of a message that is back, or that a run did not get to: old links are nothing that a later run may find.
        for copy in mxfleet-quarantine/*/*; do
            [ ! -d "$copy" ] || [ -e "$copy/message" ] || [ -e "$copy.ready" ] || [ -e "$copy.coming" ] || rm -rf "$copy"
        done
    }
'
eval "$shared"
