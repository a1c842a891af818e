#!/bin/sh
# Reads or replaces the list of senders that an MTA refuses; the MTA sees the old list or the new one, never anything
# between.
#
#   block_file.sh read  MTA CONFIG FILE KIND   stdout: "SHA256 STATE", the host's addresses, and then the file; STATE fits,
#                                              stale (newer than its map, or gone while its map is there) or absent
#   block_file.sh query MTA CONFIG FILE KIND   stdin: keys in lower case; stdout: "KEY<tab>VALUE" for those in effect, "end"
#   block_file.sh apply MTA CONFIG FILE KIND   stdin: SHA256 of the file as planned ("-": absent), "write SHA256" of the
#                                              new file or "remove", number of checks, that many lines "KEY<tab>VALUE" (no
#                                              value: absent) which a map built of the file must give, the new file
#
#   MTA postfix:   CONFIG its directory, FILE the source of a map that checks senders, or mxfleet_senders there, KIND the
#                  map's type
#   MTA sendmail:  CONFIG the .cf file, FILE the source of its access map, KIND the map's type
#   MTA qmail:     CONFIG its home, FILE control/badmailfrom in it
#   MTA exim:      CONFIG the file that exim runs with, FILE a list that it names, or mxfleet_senders in /etc/exim4
#   MTA opensmtpd: CONFIG smtpd.conf, FILE the file of its table KIND, or mxfleet_senders beside it
#
# What a run left that was cut off is put right first, also by read.
#
# Exit status: 65 a check failed, 66 not a list of that MTA, 69 not removed while the configuration names it, 70 a part
# of this failed, 73 could not write, 74 what is left cannot be put right, 75 locked, 76 changed meanwhile.
# shellcheck disable=SC2154 # place.sh sets gone and told
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"
# shellcheck source=enter.sh
. "${0%/*}/enter.sh"
# shellcheck source=exchange.sh
. "${0%/*}/exchange.sh"
# shellcheck source=place.sh
. "${0%/*}/place.sh"
# shellcheck source=postfix_instance.sh
. "${0%/*}/postfix_instance.sh"

action=$1 mta=$2 config=$3 file=$4 kind=$5
name=${file##*/}
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
    is_rootly "$config" || return
    case $mta in
        postfix) is_instance "$config" && checks_senders ;;
        sendmail)
            # A map with columns of its own, or one that keeps upper and lower case apart, is not edited.
            [ -f "$config" ] && asks awk -v type="$kind" -v file="$file" '
                !sub(/^Kaccess[ \t]+/, "") { next }
                { for (i = 2; i < NF; i++) if ($i ~ /^-[fkvz]/) exit }
                $1 == type && ($NF == file || $NF == file ".db") { found = 1 }
                END { exit !found }' "$config"
            ;;
        qmail) [ -x "$config/bin/qmail-queue" ] && [ "$file" = "$config/control/badmailfrom" ] ;;
        exim)
            [ "$file" = /etc/exim4/mxfleet_senders ] || asks awk -v file="$file" '
                NR == FNR { if (macro == "" && sub(/^[ \t]*CONFDIR[ \t]*=[ \t]*/, "")) macro = $0; next }
                /^[ \t]*#/ { next }
                {
                    gsub(/CONFDIR/, macro)
                    count = split($0, word, "[^A-Za-z0-9/._@+-]+")
                    for (i = 1; i <= count; i++) if (word[i] == file) found = 1
                }
                END { exit !found }' "$config" "$config"
            ;;
        opensmtpd) if names_table; then table=$kind; else [ "$file" = "${config%/*}/mxfleet_senders" ]; fi ;;
        *) return 1 ;;
    esac
}

checks_senders() {
    [ "$file" != "$own" ] || return 0
    checked=$(postconf -c "$config" -xh smtpd_sender_restrictions &&
        postconf -c "$config" -xP '*/*/smtpd_sender_restrictions') || fail 70 "postconf failed"
    has_word "$checked" "$kind:$file"
}

# A table of senders that a rule refuses, and nothing else: aliases and passwords are tables too.
names_table() {
    asks awk -v name="$kind" -v file="$file" '
        { sub(/#.*/, ""); line = line $0 }
        sub(/\\$/, " ", line) { next }
        { $0 = line; line = ""; gsub(/"/, ""); gsub(/[ \t]+/, " ") }
        $1 == "table" {
            gsub(/[<>]/, "", $2)
            for (i = 3; i <= NF; i++) if ($2 == name && ($i == "file:" file || $i == file)) found = 1
            next
        }
        !index($0, "<" name ">") { next }
        /^ ?match .* ?reject ?$/ && index($0, " mail-from <" name "> ") && !/! ?mail-from/ { refuses = 1; next }
        { other = 1 }
        END { exit !(found && refuses && !other) }' "$config"
}

dump() { # MAP: its entries
    case $mta in
        postfix) postmap -c "$config" -s "$kind:$1" ;;
        *) makemap -C "$config" -u "$kind" "$1" ;;
    esac
}

# Sets $got, "" where the map has none; false when it does not say. Of makemap's maps it is asked of the dump.
look_up() { # KEY MAP DUMP
    # shellcheck disable=SC2016 # awk's
    [ "$mta" = postfix ] || {
        got=$(key=$1 awk -F '\t' '($1 "") == ENVIRON["key"] "" { print substr($0, length($1) + 2); exit }' "$3")
        return
    }
    # A status of 1 is also that of a map that postmap cannot read, and says so then.
    got=$(postmap -c "$config" -q "$1" "$kind:$2") && return
    [ $? -eq 1 ] || return
    said=$(postmap -c "$config" -q "$1" "$kind:$2" 2>&1)
    [ $? -eq 1 ] || return
    case $said in *': fatal: '* | *': error: '*) return 1 ;; esac
}

verify() { # MAP DUMP
    [ -n "$checks" ] || return 0
    while IFS=$tab read -r key value; do
        look_up "$key" "$1" "$2" || { echo "mxfleet: $1 cannot be read" >&2; return 1; }
        [ "$got" = "$value" ] || { echo "mxfleet: $1: $key gives '$got', expected '$value'" >&2; return 1; }
    done <<END
$checks
END
}

build_map() {
    case $mta in
        postfix)
            postmap -c "$config" "$kind:new" || fail 73 "cannot build the map"
            ;;
        *)
            # makemap ends with 65 where a line of the administrator's was wrong before already, and builds the rest.
            makemap -C "$config" "$kind" new <new >said 2>&1
            status=$?
            case $status in 0 | 65) ;; *) cat said >&2; fail 73 "makemap ended with $status" ;; esac
            chmod 640 "new$suffix"
            ;;
    esac
    dump new >new.dump || fail 73 "cannot read the new map"
    if [ -e "was$suffix" ]; then
        dump was >was.dump || fail 73 "cannot read $file$suffix"
        before=$(wc -l <was.dump) && after=$(wc -l <new.dump) || fail 70 "cannot count the entries"
        [ "$after" -ge $((before - gone)) ] || fail 65 "the new map lacks entries"
    fi
}

# What somebody else wrote since is his, and stays.
put_back() { # WORDS
    take_back "$suffix"
    tell >/dev/null 2>&1
    fail 65 "$1; $told"
}

# smtpd keeps a table in memory until it is told, Postfix a texthash (DATABASE_README).
tell() {
    case $mta:$kind in
        opensmtpd:*) [ -z "$table" ] || smtpctl update table "$table" >&2 9>&- 6>&- ;;
        postfix:texthash) postfix -c "$config" reload >/dev/null 2>&1 9>&- 6>&- || : ;; # it may not be running
    esac
}

clear_up() { ! put_right "$mta" || tell || fail 74 "smtpd was not told what a change that was cut off has left"; }

# Another map than ours was built by hand since.
is_in_effect() {
    [ -z "$suffix" ] || is "../$name$suffix" "ours$suffix" ||
        { [ -f "../$name$suffix" ] && dump "$file" >live.dump && verify "$file" live.dump; }
}

apply() {
    IFS= read -r planned && IFS=' ' read -r verb wanted && IFS= read -r number || fail 66 "no header on stdin"
    read_checks "$number"
    [ "$(state "$suffix")" != stale ] || fail 76 "$file is not what its map was built of"
    open_work
    take_planned "$planned" "$suffix"
    case $verb in
        remove)
            [ "$planned" != - ] || fail 66 "$file is not there to remove"
            refuse_removal
            wanted=-
            ;;
        write)
            write
            ;;
        *) fail 66 "unknown verb $verb" ;;
    esac
    swap "$suffix"
    tell || put_back "smtpd does not take the new table"
    is_in_effect || ! is "../$name" ours || put_back "the live map is not as it should be"
    echo "applied $wanted"
}

# Neither Postfix takes mail, nor does smtpd start, without what its configuration names, in whatever way.
refuse_removal() {
    case $mta in
        sendmail) fail 66 "$file is not ours to remove" ;;
        opensmtpd) ! asks grep -qF -- "$file" "$config" || fail 69 "$config still names $file" ;;
        postfix)
            [ "$file" = "$own" ] || fail 66 "$file is not ours to remove"
            settings=$(postconf -c "$config" -n) || fail 70 "postconf failed"
            case $settings in *"$name"*) fail 69 "main.cf still names $file" ;; esac
            ! asks grep -qF -- "$name" "$config/master.cf" || fail 69 "master.cf still names $file"
            ;;
    esac
}

write() {
    # postmap gives up root for the owner of the source, who may not write here: so that is root while it builds. A file
    # that is new is read by the MTA under an account of its own: one that cannot would refuse nobody, or everybody.
    : >new && chmod 644 new && chgrp --reference=.. new && cat >new || fail 73 "cannot write beside $file"
    # A connection that ends in the middle of it looks like the end of the file.
    [ "$(sum new)" = "$wanted" ] || fail 65 "the new file did not come as a whole"
    [ -z "$suffix" ] || build_map
    verify new new.dump || fail 65 "the new map is not as it should be"
    dress ''
    [ -z "$suffix" ] || { dress "$suffix" && mark "$suffix"; } # never older than the file
    mark ''
}

in_effect() {
    if [ -n "$suffix" ]; then
        [ ! -e "$file$suffix" ] || dump "$file"
    elif is_there; then
        { content && printf '\n\tend\t\n'; } | awk '
            { last = $0; sub(/^[ \t]+/, ""); sub(/[ \t\r]+$/, ""); print tolower($0) "\t" }
            END { exit last != "\tend\t" }'
    fi
}

query() {
    if [ "$mta" != postfix ]; then
        { cat && echo && in_effect && echo end; } | awk -F "$tab" '
            !past { if ($0 == "") past = 1; else wanted[$0]; next }
            $0 == "end" || ($1 in wanted && !seen[$1]++)'
        return
    fi
    while [ -e "$file$suffix" ] && IFS= read -r key; do
        look_up "$key" "$file" || fail 70 "$kind:$file cannot be read"
        [ -z "$got" ] || printf '%s\t%s\n' "$key" "$got"
    done
    echo end
}

suffix='' table='' own=$config/mxfleet_senders
case $mta:$kind in
    sendmail:hash | sendmail:btree | postfix:hash | postfix:btree) suffix=.db ;;
    sendmail:cdb | postfix:cdb) suffix=.cdb ;;
    postfix:lmdb) suffix=.lmdb ;;
    postfix:texthash) ;;
    sendmail:* | postfix:*) fail 66 "maps of type $kind are not edited" ;;
esac
known || fail 66 "$file is no list of senders that $config names"
go_to_file "$file"

case $action in
    read)
        clear_up
        seen=$(digest) || fail 70 "cannot read $file"
        addresses=$(hostname -I 2>/dev/null) || [ $? -lt 128 ] || fail 70 "hostname was ended by a signal"
        printf '%s %s\n%s\n' "$seen" "$(state "$suffix")" "$addresses"
        ! is_there || content
        exit
        ;;
    query)
        query
        exit
        ;;
    apply) ;;
    *) fail 66 "unknown action $action" ;;
esac
take_lock "$mta"
read_fence
check_fence
clear_up
apply
