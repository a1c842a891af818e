#!/bin/sh
# postfix_route.sh COMMAND_DIRECTORY CONFIG_DIRECTORY <lines
#
# Looks keys up in the tables that main.cf names for routing, and in no others. Lines of stdin: "map TYPE:NAME" (or the
# path of a file in a list of domains), then "key KEY". For each map that main.cf names, in that order: "map TYPE:NAME",
# "found KEY<TAB>VALUE" for each key that is there ("word WORD" for a file), and "status N", postmap's exit status, 0
# also when a key is absent. Then "end". Changes nothing.
# shellcheck source=prologue.sh
. "${0%/*}/prologue.sh"

commands=$1
config=$2
case $commands$config in
/*) ;;
*) exit 64 ;;
esac
named=$("$commands/postconf" -c "$config" -xh transport_maps virtual_alias_maps virtual_alias_domains \
    virtual_mailbox_domains virtual_mailbox_maps relay_domains mydestination recipient_canonical_maps canonical_maps \
    sender_dependent_relayhost_maps sender_dependent_default_transport_maps myorigin | tr -s ', \t\n' '\n\n\n\n')
maps=
keys=
while IFS= read -r line; do
    case $line in
    'map '*) maps="$maps${line#map }
" ;;
    'key '*) keys="$keys${line#key }
" ;;
    esac
done

printf '%s' "$maps" | while IFS= read -r map; do
    # -x -F: the whole word, as it is; a table that main.cf does not name is not read by root.
    printf '%s\n' "$named" | sed 's/^!//' | grep -qxF -e "$map" || continue
    printf 'map %s\n' "$map"
    case $map in
    /*)
        head -c 262144 -- "$map" | sed 's/#.*//' | tr -s ', \t' '\n\n\n' | sed -n 's/^\(..*\)$/word \1/p'
        echo "status 0"
        ;;
    *)
        found=$(printf '%s' "$keys" | timeout 20 "$commands/postmap" -c "$config" -q - "$map" 2>&1)
        status=$?
        # postmap(1): 1 when some key was not there; what it says on stderr begins with its name.
        case $found in
        *postmap:\ fatal:* | *postmap:\ warning:*) status=70 ;;
        esac
        [ "$status" != 1 ] || status=0
        [ -z "$found" ] || printf '%s\n' "$found" | sed 's/^/found /'
        echo "status $status"
        ;;
    esac
done
echo end
