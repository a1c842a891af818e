#!/bin/sh
# Puts our check of senders into main.cf, or takes it out; refuses a main.cf that would change anything else.
#
#   postfix_wire.sh read  CONFIG_DIR TYPE    stdout: "SHA256 fits" and then main.cf
#   postfix_wire.sh apply CONFIG_DIR TYPE    stdin: SHA256 of main.cf as planned, then the new main.cf
#
# Exit status: 65 the new main.cf is not accepted, 66 not an instance, 73 could not write, 75 locked, 76 changed meanwhile.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"
# shellcheck source=fence.sh
. "${0%/*}/fence.sh"

action=$1 config=$2 type=$3
file=$config/main.cf
new=$file.mxfleet-new
parameter=smtpd_sender_restrictions
element="check_sender_access $type:$config/mxfleet_senders"

fail() {
    status=$1
    shift
    echo "mxfleet: $*" >&2
    exit "$status"
}

known() {
    [ "$config" = "$(postconf -h config_directory)" ] && return 0
    postconf -xh alternate_config_directories multi_instance_directories | tr ', ' '\n\n' | grep -qxF -- "$config"
}

digest() { sha256sum <"$file" | cut -d ' ' -f 1; }

others() { postconf -c "$1" -n | grep -v -e "^$parameter =" -e "^config_directory ="; }

value() { postconf -c "$1" -h "$parameter" | tr -d ' ,'; }

# Run as root by sudo, this must not become a way to set any parameter.
only_ours() {
    mkdir -m 700 "$new.d" && cp "$new" "$new.d/main.cf" && cp "$config/master.cf" "$new.d/" || return 1
    ours=$(printf %s "$element" | tr -d ' ,')
    before=$(value "$config") after=$(value "$new.d")
    [ "$(others "$config")" = "$(others "$new.d")" ] || return 1
    [ "$after" = "$ours$before" ] || [ "$before" = "$ours$after" ]
}

keep_five() {
    cp -p --preserve=all "$file" "$file.mxfleet-$(date -u +%Y%m%d%H%M%S)-$$" || return 1
    ls -1 "$file".mxfleet-[0-9]* | sort | head -n -5 | while IFS= read -r old; do rm -f "$old"; done
}

put_back() {
    mv -f "$new.old" "$file"
    postfix -c "$config" reload >/dev/null 2>&1 9>&- 6>&-
}

apply() {
    IFS= read -r planned || fail 66 "no header on stdin"
    [ "$(digest)" = "$planned" ] || fail 76 "$file was changed meanwhile"
    cp -p --preserve=all "$file" "$new" && cat >"$new" && sync "$new" || fail 73 "cannot write beside $file"
    only_ours || fail 65 "the new main.cf changes more than $parameter"
    keep_five && ln "$file" "$new.old" || fail 73 "cannot keep a copy of $file"
    [ "$(digest)" = "$planned" ] || fail 76 "$file was changed meanwhile"
    mv -f "$new" "$file" || fail 73 "cannot rename $new"
    sync "$config"
    postfix -c "$config" check 9>&- 6>&- || { put_back; fail 65 "postfix check refuses it; the old main.cf is back"; }
    postfix -c "$config" reload 9>&- 6>&- || { put_back; fail 65 "postfix reload failed; the old main.cf is back"; }
    echo "applied $(digest)"
}

known || fail 66 "$config is no instance of this host"
[ ! -L "$file" ] || fail 66 "$file is a symbolic link"
if [ "$action" = read ]; then
    echo "$(digest) fits"
    cat "$file"
    exit
fi
[ "$action" = apply ] || fail 66 "unknown action $action"
exec 9>/run/mxfleet-postfix.lock || fail 73 "cannot lock"
flock -w 20 9 || fail 75 "another change is running"
read_fence
check_fence
rm -rf "$new" "$new".*
trap 'rm -rf "$new" "$new".*' EXIT
trap 'exit 73' HUP INT TERM
apply
