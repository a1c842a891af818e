#!/bin/sh
# read_log.sh KIND SOURCE... <"SINCE ZONE\nTEXT\n..."
#
# Lines of mail logs since then (epoch seconds). ZONE: the TZ of stamps without an offset, none for the host's. SOURCE: a
# file, with those that it was rotated to; a directory of multilog(8); or journald. KIND any: the lines that contain TEXT.
# KIND postfix, sendmail, exim, opensmtpd, qmail: all lines of the messages that a line with a TEXT, in any case, is about,
# and that line. An empty TEXT: every line.
#
# Log lines are told with a space before them, what is ours with "=": the time, the time zone's offsets since then, each
# source with the newest of its files that were last written to before then ("=before MTIME PATH"), each file with some
# lines of its beginning and end, files that could not be read, "=cut" when messages had to be left out, "=moved" when the
# log was rotated meanwhile, and "=end". Changes nothing.
# shellcheck disable=SC2016,SC3045 # awk's own $; every sh that Debian may have knows ulimit -v, and POSIX has nothing that limits memory
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=pipefail.sh
. "${0%/*}/pipefail.sh"
most=200000 # messages; the newest are kept
memory=524288 # KiB of each filter, which keeps a line whole: of a file with a line that is larger the rest is not read
work=$(mktemp -d) || exit 73
trap 'rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM

kind=$1
shift
read -r since tz || exit 64
case $since in
'' | *[!0-9]*) exit 64 ;;
esac
case $tz in
'') ;;
*[!0-9A-Za-z/_+:,.\<\>-]*) exit 64 ;;
*) export TZ="$tz" ;;
esac
cat >"$work/text" || exit 74
[ "$(wc -l <"$work/text")" -ge 1 ] || exit 64
text=$(cat "$work/text")
now=$(date +%s)

offset() { date -d "@$1" +%z; }

zones() { # the offset at SINCE, and each change of it until now
    at=$since
    zone=$(offset "$at")
    echo "=zone $at $zone"
    while [ "$at" -lt "$now" ]; do
        next=$((at + 2419200))
        [ "$next" -le "$now" ] || next=$now
        if [ "$(offset "$next")" != "$zone" ]; then
            while [ $((next - at)) -gt 1 ]; do
                middle=$(((at + next) / 2))
                if [ "$(offset "$middle")" = "$zone" ]; then at=$middle; else next=$middle; fi
            done
            zone=$(offset "$next")
            echo "=zone $next $zone"
        fi
        at=$next
    done
}

# The MTA's account may write in its log directory: a link of its own leads nowhere for us.
is_safe() { [ ! -L "$1" ] || [ "$(sure uncut stat -c %u "$1")" = 0 ]; }

found() { # DIRECTORY, find's name conditions
    directory=$1
    shift
    sure search "$directory" -maxdepth 1 -type f \( "$@" \) -printf '%T@ %i %p\n'
}

files_of() { # SOURCE: "MTIME INODE PATH" of it and of what it was rotated to, oldest first
    case $1 in
    journald)
        echo "$now 0 journald"
        return
        ;;
    esac
    is_safe "$1" || return 0
    path=$(sure uncut readlink -f "$1")
    [ -n "$path" ] && [ -d "${path%/*}" ] || return 0
    name=${path##*/}
    if [ -d "$path" ]; then
        found "$path" -name current -o -name '@*.[su]'
    else
        found "${path%/*}" -name "$name" -o -name "${name}[.-][0-9]*" -o -name "${name}.old*" -o \
            -name "${name%.*}[.-][0-9]*.${name##*.}" -o -name "${name%.*}[.-][0-9]*.${name##*.}.[bglxzZ]*"
    fi | sure seek '^[0-9.]* [0-9]* [0-9A-Za-z/@._+-]*$' | sure sort -n
}

list() { # of all sources, the files that were written to since then
    for source in "$@"; do
        files_of "$source" | sure awk -v since="$((since - 1))" '$1 >= since'
    done
}

unpacked() { # PATH
    case $1 in
    journald) journalctl -q --no-pager -a -o short-unix --since "@$since" SYSLOG_FACILITY=2 ;;
    *.gz | *.Z) gzip -dc <"$1" ;;
    *.xz | *.lzma) xz -dc <"$1" ;;
    *.zst) zstd -dcq <"$1" ;;
    *.bz2) bzip2 -dc <"$1" ;;
    *.lz4) lz4 -dcq <"$1" ;;
    *) cat "$1" ;;
    esac
}

content() { # PATH
    unpacked "$1" 2>>"$work/errors" || echo "=unread $1" >>"$work/unread"
}

ends() { # PATH: lines of its beginning and, where that is cheap, of its end
    {
        if [ "$1" = journald ]; then
            journalctl -q --no-pager -a -o short-unix SYSLOG_FACILITY=2
        else
            unpacked "$1"
        fi | head -c 2000 | head -n 5 | tr -d '\000' | awk '{ print "=first " $0 }'
        case $1 in
        journald) journalctl -q --no-pager -a -o short-unix -n 1 SYSLOG_FACILITY=2 ;;
        *.gz | *.Z | *.xz | *.lzma | *.zst | *.bz2 | *.lz4) ;;
        *) tail -c 2000 "$1" | tail -n 5 | tr -d '\000' ;;
        esac | awk '{ print "=last " $0 }'
    } 2>/dev/null
}

tell() { # SOURCE: its files and what of them is wanted
    echo "=source $1"
    files_of "$1" >"$work/of"
    : >"$work/those"
    sure awk -v since="$((since - 1))" -v those="$work/those" '$1 >= since { print $3 >those; next } { before = $1 " " $3 }
        END { if (before != "") print "=before", before }' "$work/of"
    while read -r path; do
        echo "=file $path"
        ends "$path"
        content "$path" | bounded "$path" wanted | bounded "$path" as_lines
    done <"$work/those"
}

bounded() { # PATH COMMAND: the file's content through it
    (
        path=$1
        shift
        ulimit -v "$memory"
        "$@" 2>>"$work/errors" || [ $? -eq 1 ] || echo "=unread $path" >>"$work/unread"
    )
}

each() { # COMMAND: every file's content through it
    while read -r _ _ path; do
        content "$path" | bounded "$path" "$@"
    done <"$work/files"
}

with_text() { grep -aiF -f "$work/text"; }

id='\([0-9A-Za-z]\{6,\}\)'

# What smtpd decides before a mail has its queue ID, and then that, are lines of one process.
before='NOQUEUE: [a-z-]*\(hold\|discard\): '
case $text in
*[!0-9A-Za-z]*) ;;
*) before="$text: client=" ;;
esac

ids() { # of lines with TEXT: what the other lines of the same messages contain
    case $kind in
    postfix | sendmail)
        # The last two: under what ID it goes on, behind a filter of this host or a .forward file.
        sure sed -n -e h -e "s/^[^]]*\]: $id: .*/\1/p" -e g -e "s/^[^]]*\]: $id: $id: .*/\2/p" \
            -e g -e "s/^<[0-9]*>1 [^ ]* [^ ]* [^ ]* [^ ]* [^ ]* \(-\|\(\[\(\\\\.\|[^]\]\)*]\)*\) [^0-9A-Za-z]*$id: .*/\4/p" \
            -e g -e "s/^.* relay=[^ ]*\[[1:][2:][17][].].* queued as $id)\$/\1/p" \
            -e g -e "s/^.* relay=local, .*(forwarded as $id)\$/\1/p" \
            -e g -e "s/^[^]]*[^a-z]\(smtpd\[[0-9]*]: \)$before.*/\1/p" |
            sure seek -vxE 'NOQUEUE|warning|statistics'
        ;;
    exim) sure seek -aoE '[0-9A-Za-z]{6}-([0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4})' ;;
    opensmtpd)
        sure seek -aoE 'evpid=[0-9a-f]{8}|msgid=[0-9a-f]{8}|[0-9a-f]{16} smtp ' | sure sed 's/^.*id=\(.*\)/&\n for \1/'
        ;;
    qmail)
        sure seek -aoE 'msg [0-9]+|[a-z]\[[0-9]+\]: |qp [0-9]+' |
            sure sed 's/^msg //;s/^qp /q/;s/^.\[\([0-9]*\).*/p\1/'
        ;;
    esac
}

# What syslogd writes for equal lines: it stands for the line before it in that file, and is told where that is.
repeated='^[^=<]*[Ll]ast message repeated [0-9]+ times?$|[Ll]ast message .* repeated [0-9]+ times, suppressed by syslog-ng on [^ ]+$'

# shellcheck disable=SC2016
qmail='function tell() { print; told = NR }
    BEGIN { split(ENVIRON["text"], texts, "\n") }
    FILENAME == ARGV[1] { wanted[$1]; next }
    /ast message / && $0 ~ ENVIRON["repeated"] { if (told == NR - 1) tell(); next }
    match($0, /delivery [0-9]+: msg [0-9]+ to /) {
        split(substr($0, RSTART, RLENGTH), word, " ")
        if (word[4] in wanted) { live[word[2]]; tell() } else delete live[word[2]]
        next
    }
    match($0, / delivery [0-9]+: /) {
        split(substr($0, RSTART, RLENGTH), word, " ")
        if (word[2] in live) { delete live[word[2]]; tell(); next }
    }
    match($0, / (new|info|end|bounce) msg [0-9]+/) {
        split(substr($0, RSTART, RLENGTH), word, " ")
        if (word[3] in wanted) { tell(); next }
    }
    match($0, / bounce\/[0-9]+$/) { if (substr($0, RSTART + 8, RLENGTH - 8) in wanted) tell(); next }
    match($0, /[a-z]\[[0-9]+\]: /) {
        process = substr($0, RSTART + 2, RLENGTH - 5)
        if ("p" process in wanted) tell()
        else if ((at = index($0, "Accepted message qp ")) && ("q" (substr($0, at + 20) + 0)) in wanted) {
            if (process in client) print client[process]
            tell()
        }
        next
    }
    match($0, /tcpserver: pid [0-9]+ /) {
        process = substr($0, RSTART + 15, RLENGTH - 16)
        client[process] = $0
        if ("p" process in wanted) { tell(); next }
    }
    { said = tolower($0); for (at in texts) if (index(said, texts[at])) { tell(); next } }'

# shellcheck disable=SC2016
numbered='{ # as grep -n says it
    at = index($0, ":"); number = substr($0, 1, at - 1); line = substr($0, at + 1) }
    number != before + 1 && line ~ /ast message / && line ~ ENVIRON["repeated"] { next }
    { before = number; print " " line }'

wanted() { # what goes into the answer
    if [ "$kind" = any ]; then
        grep -aF -f "$work/text"
    elif [ -z "$text" ]; then
        cat
    elif [ "$kind" = qmail ]; then
        text=$(printf %s "$text" | tr '[:upper:]' '[:lower:]') repeated=$repeated awk "$qmail" "$work/ids" -
    else
        grep -aniF -e 'last message ' -f "$work/ids"
    fi
}

as_lines() {
    if [ "$kind" = any ] || [ "$kind" = qmail ] || [ -z "$text" ]; then
        sed 's/^/ /'
    else
        repeated=$repeated awk "$numbered"
    fi
}

choose() { # the messages, and TEXT itself for lines that belong to none
    # Sendmail logs no sender of the notices that it makes itself; their lines tell it.
    if [ "$kind$text" = 'sendmail<>' ]; then
        printf '%s\n' ': DSN: ' ': return to sender: ' ': postmaster notify: ' >>"$work/text"
    fi
    each with_text | (ulimit -v "$memory" && ids) | sure awk '!seen[$0]++' >"$work/all"
    if [ "$kind:${before%%:*}" = postfix:NOQUEUE ] && grep -a '^smtpd\[' "$work/all" >"$work/smtpd"; then
        each grep -aF -f "$work/smtpd" | (ulimit -v "$memory" && sure sed -n "s/^[^]]*]: $id: client=.*/\1/p") >>"$work/all"
    fi
    sure tail -n "$most" "$work/all" >"$work/ids"
    [ "$(wc -l <"$work/all")" -le "$most" ] || echo "=cut $most"
    [ "$kind" = qmail ] || sure cat "$work/text" >>"$work/ids"
    rm -f "$work/unread"
}

case $kind in
any | postfix | sendmail | exim | opensmtpd | qmail) ;;
*) exit 64 ;;
esac
for source in "$@"; do
    case $source in
    journald | /*) ;;
    *) exit 64 ;;
    esac
done
list "$@" >"$work/files"
[ -s "$work/files" ] || { is_safe "$1" && [ -e "$1" ]; } || exit 66
echo "=now $now"
zones
if [ "$kind" != any ] && [ -n "$text" ]; then choose; fi
for source in "$@"; do tell "$source"; done
list "$@" | sure cut -d' ' -f2- >"$work/then"
cut -d' ' -f2- "$work/files" | cmp -s - "$work/then" || echo "=moved"
[ ! -e "$work/unread" ] || sure sort -u "$work/unread"
echo "=end"
