#!/bin/sh
# Reads or replaces the list of senders that an MTA refuses; the MTA sees the old list or the new one, never anything
# between.
#
#   block_file.sh read  MTA CONFIG FILE NAME   stdout: "SHA256 STATE", the host's addresses, and then the file; STATE fits,
#                                              stale (newer than its map) or absent
#   block_file.sh query MTA CONFIG FILE NAME   stdin: keys in lower case; stdout: "KEY<tab>VALUE" for those in effect, "end"
#   block_file.sh apply MTA CONFIG FILE NAME   stdin: SHA256 of the file as planned ("-": absent), "write" or "remove",
#                                              number of checks, that many lines "KEY<tab>VALUE" (no value: absent) which
#                                              a map built of the file must give, the new file
#
#   MTA sendmail:  CONFIG the .cf file, FILE the source of its access map, NAME the map's type
#   MTA qmail:     CONFIG its home, FILE control/badmailfrom in it
#   MTA exim:      CONFIG the file that exim runs with, FILE a list that it names, or mxfleet_senders in /etc/exim4
#   MTA opensmtpd: CONFIG smtpd.conf, FILE the file of its table NAME, or mxfleet_senders beside it
#
# Exit status: 65 a check failed, 66 not a list of that MTA, 73 could not write, 75 locked, 76 changed meanwhile.
# shellcheck disable=SC3013 # every sh that Debian may have knows -nt, and POSIX has nothing that compares times
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"

action=$1 mta=$2 config=$3 file=$4 name=$5
work=$file.mxfleet-work
tab=$(printf '\t')

fail() {
    status=$1
    shift
    echo "mxfleet: $*" >&2
    exit "$status"
}

# Run as root by sudo, this must not become a way to write any file: only what root's own configuration names.
known() {
    case $file in /*/../* | */.. | *[!A-Za-z0-9/._@+-]*) return 1 ;; /*) ;; *) return 1 ;; esac
    [ -n "$(find -H "$config" -prune -user root ! -perm /022)" ] || return 1
    case $mta in
        sendmail)
            # A map with columns of its own, or one that keeps upper and lower case apart, is not edited.
            [ -f "$config" ] && sed -n 's/^Kaccess[ \t][ \t]*//p' "$config" | awk -v type="$name" -v file="$file" '
                { for (i = 2; i < NF; i++) if ($i ~ /^-[fkvz]/) exit }
                $1 == type && ($NF == file || $NF == file ".db") { found = 1 }
                END { exit !found }'
            ;;
        qmail) [ -x "$config/bin/qmail-queue" ] && [ "$file" = "$config/control/badmailfrom" ] ;;
        exim)
            [ "$file" = /etc/exim4/mxfleet_senders ] || {
                macro=$(sed -n 's/^[ \t]*CONFDIR[ \t]*=[ \t]*//p' "$config" | head -n 1)
                sed "s|CONFDIR|$macro|g" "$config" | grep -v '^[ \t]*#' | tr -c 'A-Za-z0-9/._@+-' '\n' | grep -qxF -- "$file"
            }
            ;;
        opensmtpd) [ "$file" = "$(dirname "$config")/mxfleet_senders" ] || names_table ;;
        *) return 1 ;;
    esac
}

# A table of senders that a rule refuses, and nothing else: aliases and passwords are tables too.
names_table() {
    sed 's/#.*//' "$config" | sed -e ':a' -e '/\\$/N' -e 's/\\\n/ /' -e 'ta' | tr -d '"' | awk -v name="$name" -v file="$file" '
        { gsub(/[ \t]+/, " ") }
        $1 == "table" {
            gsub(/[<>]/, "", $2)
            for (i = 3; i <= NF; i++) if ($2 == name && ($i == "file:" file || $i == file)) found = 1
            next
        }
        !index($0, "<" name ">") { next }
        /^ ?match .* ?reject ?$/ && index($0, " mail-from <" name "> ") && !/! ?mail-from/ { refuses = 1; next }
        { other = 1 }
        END { exit !(found && refuses && !other) }'
}

digest() {
    if [ -e "$file" ]; then sha256sum <"$file" | cut -d ' ' -f 1; else echo -; fi
}

state() {
    if [ ! -e "$file" ]; then
        echo absent
    elif [ -n "$map" ] && { [ ! -e "$map" ] || [ "$file" -nt "$map" ]; }; then
        echo stale
    else
        echo fits
    fi
}

dump() { makemap -C "$config" -u "$name" "$1"; }

# $1: the dump of a map.
verify() {
    [ -n "$checks" ] || return 0
    while IFS= read -r line; do
        key=${line%%"$tab"*}
        if [ "$line" = "$key$tab" ]; then
            ! cut -f 1 "$1" | grep -qxF -- "$key" || { echo "mxfleet: $key is still in the map" >&2; return 1; }
        else
            grep -qxF -- "$line" "$1" || { echo "mxfleet: the map does not give $line" >&2; return 1; }
        fi
    done <<END
$checks
END
}

# Built aside. makemap ends with 65 where a line of the administrator's was wrong before already, and builds the rest.
build_map() {
    new_map=$work/new$suffix
    makemap -C "$config" "$name" "$work/new" <"$work/new" >"$work/said" 2>&1
    status=$?
    case $status in 0 | 65) ;; *) cat "$work/said" >&2; fail 73 "makemap ended with $status" ;; esac
    dump "$work/new" >"$work/new.dump" || fail 73 "cannot read the new map"
    if [ -e "$map" ]; then
        dump "$file" >"$work/old.dump" || fail 73 "cannot read $map"
        gone=$(printf '%s\n' "$checks" | grep -c "$tab\$")
        [ "$(wc -l <"$work/new.dump")" -ge $(($(wc -l <"$work/old.dump") - gone)) ] || fail 65 "the new map lacks entries"
        cp --attributes-only --preserve=all "$map" "$new_map" && touch "$new_map" ||
            fail 73 "cannot give the new map its owner and mode"
    fi
    verify "$work/new.dump" || fail 65 "the new map is not as it should be"
    sync "$new_map" || fail 73 "cannot write $new_map"
}

keep_five() {
    cp -p --preserve=all "$file" "$file.mxfleet-$(date -u +%Y%m%d%H%M%S)-$$" || return 1
    ls -1 "$file".mxfleet-[0-9]* | sort | head -n -5 | while IFS= read -r old; do rm -f "$old"; done
}

put_back() {
    is_ours || return
    [ -z "$map" ] || { if [ -e "$work/old$suffix" ]; then mv -f "$work/old$suffix" "$map"; else rm -f "$map"; fi; }
    if [ -e "$work/old" ]; then mv -f "$work/old" "$file"; else rm -f "$file"; fi
    [ "$1" = quiet ] || tell >/dev/null 2>&1
}

# smtpd keeps a table in memory until it is told.
tell() {
    [ "$mta" = opensmtpd ] && names_table || return 0
    smtpctl update table "$name" >&2 9>&- 6>&-
}

# What an administrator edited since is his: then the file is left alone, and whoever asked looks what is in effect.
is_ours() { [ "$(digest)" = "$wanted" ]; }

# An edit in place that came between our last look and the rename went into the old file.
nobody_wrote() { [ ! -e "$work/old" ] || [ "$(sha256sum <"$work/old" | cut -d ' ' -f 1)" = "$planned" ]; }

is_in_effect() { [ -z "$map" ] || { dump "$file" >"$work/live.dump" && verify "$work/live.dump"; }; }

apply() {
    IFS= read -r planned && IFS= read -r verb && IFS= read -r number || fail 66 "no header on stdin"
    checks=
    while [ "$number" -gt 0 ] && IFS= read -r line; do
        checks=$checks${checks:+
}$line
        number=$((number - 1))
    done
    [ "$(digest)" = "$planned" ] || fail 76 "$file was changed meanwhile"
    [ "$(state)" != stale ] || fail 76 "$file is newer than its map"
    mkdir -m 700 "$work" || fail 73 "cannot write beside $file"
    case $verb in
        remove)
            [ -z "$map" ] && [ "$planned" != - ] || fail 66 "$file is not ours to remove"
            wanted=-
            ;;
        write)
            write
            wanted=$(sha256sum <"$work/new" | cut -d ' ' -f 1)
            ;;
        *) fail 66 "unknown verb $verb" ;;
    esac
    swap
    nobody_wrote || { put_back quiet; fail 76 "$file was changed meanwhile"; }
    tell || { put_back told; fail 65 "smtpd does not take the new table; the old one is back"; }
    is_in_effect || ! is_ours || { put_back told; fail 65 "the live map is not as it should be; the old one is back"; }
    echo "applied $wanted"
}

write() {
    if [ -e "$file" ]; then
        cp -p --preserve=all "$file" "$work/new" || fail 73 "cannot write beside $file"
    else
        # The MTA reads it under an account of its own: one that cannot would refuse nobody, or everybody.
        : >"$work/new" && chmod 644 "$work/new" && chgrp --reference="$(dirname "$file")" "$work/new" ||
            fail 73 "cannot write beside $file"
    fi
    cat >"$work/new" && sync "$work/new" || fail 73 "cannot write $work/new"
    [ -z "$map" ] || build_map
}

swap() {
    if [ -e "$file" ]; then
        keep_five && ln "$file" "$work/old" || fail 73 "cannot keep a copy of $file"
    fi
    if [ -n "$map" ] && [ -e "$map" ]; then ln "$map" "$work/old$suffix" || fail 73 "cannot keep a copy of $map"; fi
    [ "$(digest)" = "$planned" ] || fail 76 "$file was changed meanwhile"
    if [ "$verb" = remove ]; then
        rm -f "$file" || fail 73 "cannot remove $file"
    else
        [ -z "$map" ] || mv -f "$new_map" "$map" || fail 73 "cannot rename $new_map"
        mv -f "$work/new" "$file" || {
            [ -z "$map" ] || { [ -e "$work/old$suffix" ] && mv -f "$work/old$suffix" "$map"; }
            fail 73 "cannot rename $work/new"
        }
    fi
    sync "$(dirname "$file")"
}

in_effect() {
    if [ -n "$map" ]; then
        dump "$file"
    elif [ -e "$file" ]; then
        awk '{ sub(/^[ \t]+/, ""); sub(/[ \t\r]+$/, ""); print tolower($0) "\t" }' "$file"
    fi
}

query() {
    { cat; echo; in_effect && echo end; } | awk -F "$tab" '
        !past { if ($0 == "") past = 1; else wanted[$0]; next }
        $0 == "end" || ($1 in wanted && !seen[$1]++)'
}

suffix=
case $mta:$name in
    sendmail:hash | sendmail:btree) suffix=.db ;;
    sendmail:cdb) suffix=.cdb ;;
    sendmail:*) fail 66 "maps of type $name are not edited" ;;
esac
map=${suffix:+$file$suffix}
known || fail 66 "$file is no list of senders that $config names"
[ ! -L "$file" ] || fail 66 "$file is a symbolic link"
[ ! -e "$file" ] || [ -f "$file" ] || fail 66 "$file is no file"

case $action in
    read)
        echo "$(digest) $(state)"
        hostname -I 2>/dev/null || echo
        [ ! -e "$file" ] || cat "$file"
        exit
        ;;
    query)
        query
        exit
        ;;
    apply) ;;
    *) fail 66 "unknown action $action" ;;
esac
exec 9>"/run/mxfleet-$mta.lock" || fail 73 "cannot lock"
flock -w 20 9 || fail 75 "another change is running"
read_fence
check_fence
rm -rf "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 73' HUP INT TERM
apply
