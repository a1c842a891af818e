#!/bin/sh
# Reads or replaces one access map of a Postfix instance; smtpd sees the old map or the new one, never anything between.
#
#   postfix_access.sh read   CONFIG_DIR TYPE FILE    stdout: "SHA256 STATE" and then the file; STATE fits, stale (newer than
#                                                    its map, or gone while its map is there) or absent
#   postfix_access.sh apply  CONFIG_DIR TYPE FILE    stdin: SHA256 of the file as planned ("-": absent) and of the new one,
#                                                    number of checks, that many lines "KEY<tab>VALUE" (no value: absent),
#                                                    the new file
#   postfix_access.sh query  CONFIG_DIR TYPE FILE    stdin: keys; stdout: "KEY<tab>VALUE" for those the live map has
#   postfix_access.sh remove CONFIG_DIR TYPE FILE    stdin: SHA256 of the file as planned; our own map, once nothing refers
#                                                    to it
#
# What a run left that was cut off is put right first, also by read.
#
# Exit status: 65 a check failed, 66 not a map of that instance, 69 not removed while the configuration names it, 70 a
# part of this failed, 73 could not write, 74 what is left cannot be put right, 75 locked, 76 changed meanwhile.
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

action=$1 config=$2 type=$3 file=$4
name=${file##*/}
own=$config/mxfleet_senders
tab=$(printf '\t')

fail() {
    status=$1
    shift
    echo "mxfleet: $*" >&2
    exit "$status"
}

# Run as root by sudo, this must not become a way to write any file: only maps that the instance checks senders with.
known() {
    case $config in /*) ;; *) return 1 ;; esac
    main=$(postconf -h config_directory) || fail 70 "postconf failed"
    if [ "$config" != "$main" ]; then
        others=$(postconf -xh alternate_config_directories multi_instance_directories) || fail 70 "postconf failed"
        has_word "$others" "$config" || return
    fi
    [ "$file" = "$own" ] && return 0
    checked=$(postconf -c "$config" -xh smtpd_sender_restrictions &&
        postconf -c "$config" -xP '*/*/smtpd_sender_restrictions') || fail 70 "postconf failed"
    has_word "$checked" "$type:$file"
}

has_word() { # TEXT WORD
    between=" ,{}$tab
"
    case ",$1," in *["$between"]"$2"["$between"]*) ;; *) return 1 ;; esac
}

# A status of 1 is also that of a map that postmap cannot read, and says so then.
look_up() { # KEY MAP: $got, "" where the map has none; false when it does not say
    got=$(postmap -c "$config" -q "$1" "$2") && return
    [ $? -eq 1 ] || return
    said=$(postmap -c "$config" -q "$1" "$2" 2>&1)
    [ $? -eq 1 ] || return
    case $said in *': fatal: '* | *': error: '*) return 1 ;; esac
}

verify() {
    [ -n "$checks" ] || return 0
    while IFS=$tab read -r key value; do
        look_up "$key" "$1" || { echo "mxfleet: $1 cannot be read" >&2; return 1; }
        [ "$got" = "$value" ] || { echo "mxfleet: $1: $key gives '$got', expected '$value'" >&2; return 1; }
    done <<END
$checks
END
}

# Sets $count, of its entries.
count() { postmap -c "$config" -s "$1" >entries && count=$(wc -l <entries) || fail 73 "cannot read $1"; }

# DATABASE_README: a texthash is read once, when a process starts.
tell_texthash() { [ -n "$suffix" ] || [ "$file" = "$own" ] || postfix -c "$config" reload >/dev/null 2>&1 9>&- 6>&-; }

clear_up() { ! put_right postfix || tell_texthash; }

apply() {
    IFS= read -r planned && IFS= read -r wanted && IFS= read -r number || fail 66 "no header on stdin"
    read_checks "$number"
    [ "$(state "$suffix")" != stale ] || fail 76 "$file is not what its map was built of"
    open_work
    take_planned "$planned" "$suffix"
    write
    swap "$suffix"
    tell_texthash
    is_in_effect || ! is "../$name" ours || {
        # What somebody else wrote since is his, and stays.
        take_back "$suffix"
        tell_texthash
        fail 65 "the live map is not as it should be; $told"
    }
    echo "applied $wanted"
}

# Another map than ours was built by hand since.
is_in_effect() { is "../$name$suffix" "ours$suffix" || { [ -f "../$name$suffix" ] && verify "$type:$file"; }; }

# postmap gives up root for the owner of the source, who may not write here: so that is root while it builds.
write() {
    cat >new && chmod 644 new || fail 73 "cannot write beside $file"
    # A connection that ends in the middle of it looks like the end of the file.
    [ "$(sum new)" = "$wanted" ] || fail 65 "the new file did not come as a whole"
    if [ -n "$suffix" ]; then
        postmap -c "$config" "$type:new" || fail 73 "cannot build the map"
        if [ -e "was$suffix" ]; then
            count "$type:was"
            before=$count
            count "$type:new"
            [ "$count" -ge $((before - gone)) ] || fail 65 "the new map lacks entries"
        fi
    fi
    verify "$type:new" || fail 65 "the new map is not as it should be"
    dress ''
    [ -z "$suffix" ] || { dress "$suffix" && mark "$suffix"; }
    mark ''
}

remove_own() {
    [ "$file" = "$own" ] || fail 66 "$file is not ours"
    # Postfix defers all mail while it cannot open a map that it is told to ask; by whatever way its name is written.
    settings=$(postconf -c "$config" -n) || fail 70 "postconf failed"
    case $settings in *"$name"*) fail 69 "main.cf still names $file" ;; esac
    ! asks grep -qF -- "$name" "$config/master.cf" || fail 69 "master.cf still names $file"
    IFS= read -r planned || fail 66 "no header on stdin"
    open_work
    take_planned "$planned" "$suffix"
    swap "$suffix"
    echo removed
}

case $type in
    hash | btree) suffix=.db ;;
    lmdb) suffix=.lmdb ;;
    cdb) suffix=.cdb ;;
    texthash) suffix= ;;
    *) fail 66 "maps of type $type are not edited" ;;
esac
known || fail 66 "$type:$file is no map that $config checks senders with"
go_to_file "$file"

if [ "$action" = read ]; then
    clear_up
    seen=$(digest) || fail 70 "cannot read $file"
    echo "$seen $(state "$suffix")"
    ! is_there || content
    exit
fi
if [ "$action" = query ]; then
    while IFS= read -r key; do
        look_up "$key" "$type:$file" || fail 70 "$type:$file cannot be read"
        [ -z "$got" ] || printf '%s\t%s\n' "$key" "$got"
    done
    echo end
    exit
fi
take_lock postfix
read_fence
check_fence
clear_up
case $action in
    apply) apply ;;
    remove) remove_own ;;
    *) fail 66 "unknown action $action" ;;
esac
