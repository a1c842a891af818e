#!/bin/sh
# Puts our check of senders into main.cf, or takes it out; refuses a main.cf that would change anything else.
#
#   postfix_wire.sh read  CONFIG_DIR TYPE    stdout: "SHA256 fits" and then main.cf
#   postfix_wire.sh apply CONFIG_DIR TYPE    stdin: SHA256 of main.cf as planned and of the new one, then the new main.cf
#
# What a run left that was cut off is put right first, also by read.
#
# Exit status: 65 the new main.cf is not accepted, 66 not an instance, 70 a part of this failed, 73 could not write, 74
# what is left cannot be put right, 75 locked, 76 changed meanwhile.
# shellcheck disable=SC2034,SC2154 # place.sh knows name, and sets told
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

action=$1 config=$2 type=$3
file=$config/main.cf
name=main.cf
parameter=smtpd_sender_restrictions
element="check_sender_access $type:$config/mxfleet_senders"

fail() {
    status=$1
    shift
    echo "mxfleet: $*" >&2
    exit "$status"
}

others() { # DIRECTORY: in its file others
    postconf -c "$1" -n >"$1/all" || return
    grep -v -e "^$parameter =" -e "^config_directory =" "$1/all" >"$1/others" || [ $? -eq 1 ]
}

value() { # DIRECTORY: in $value
    value=$(postconf -c "$1" -h "$parameter") && value=$(printf %s "$value" | tr -d ' ,')
}

# Run as root by sudo, this must not become a way to set any parameter.
only_ours() {
    for each in was new; do
        mkdir "$each.d" && cp "$each" "$each.d/main.cf" && bytes ../master.cf >"$each.d/master.cf" || return
        others "./$each.d" || return
    done
    cmp -s was.d/others new.d/others || return
    ours=$(printf %s "$element" | tr -d ' ,') && value ./was.d || return
    before=$value
    value ./new.d || return
    [ "$value" = "$ours$before" ] || [ "$before" = "$ours$value" ]
}

# What somebody else wrote since is his, and stays.
put_back() { # WORDS
    take_back ''
    reload >/dev/null 2>&1
    fail 65 "$1; $told"
}

reload() { postfix -c "$config" reload 9>&- 6>&-; }

clear_up() { ! put_right postfix || reload >/dev/null 2>&1; }

apply() {
    IFS= read -r planned && IFS= read -r wanted || fail 66 "no header on stdin"
    open_work
    take_planned "$planned" ''
    [ -e was ] && cp -p --preserve=all was new && cat >new || fail 73 "cannot write beside $file"
    # A connection that ends in the middle of it looks like the end of the file.
    [ "$(sum new)" = "$wanted" ] || fail 65 "the new main.cf did not come as a whole"
    only_ours || fail 65 "the new main.cf changes more than $parameter"
    mark ''
    swap ''
    postfix -c "$config" check 9>&- 6>&- || put_back "postfix check refuses the new main.cf"
    reload || put_back "postfix reload failed with the new main.cf"
    echo "applied $wanted"
}

go_to_file "$file"
is_instance "$config" || fail 66 "$config is no instance of this host, or not root's own"
if [ "$action" = read ]; then
    clear_up
    seen=$(digest) || fail 70 "cannot read $file"
    echo "$seen fits"
    content
    exit
fi
[ "$action" = apply ] || fail 66 "unknown action $action"
take_lock postfix
read_fence
check_fence
clear_up
apply
