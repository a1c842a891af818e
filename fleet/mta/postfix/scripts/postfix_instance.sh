# shellcheck shell=sh
# Whose configuration a directory is. Needs place.sh and a function fail STATUS WORDS.
#
#   is_instance DIRECTORY   whether it is that of a Postfix instance of this host, the default one or another, and nobody
#                           but root may write what it is configured by
#   has_word TEXT WORD      whether a parameter's value names it

is_instance() {
    is_rootly "$1" && is_rootly "$1/main.cf" && is_rootly "$1/master.cf" || return
    main=$(postconf -h config_directory) || fail 70 "postconf failed"
    [ "$1" != "$main" ] || return 0
    others=$(postconf -xh alternate_config_directories multi_instance_directories) || fail 70 "postconf failed"
    has_word "$others" "$1"
}

has_word() {
    between=$(printf ' ,{}\t\n.')
    between=${between%.}
    case ",$1," in *["$between"]"$2"["$between"]*) ;; *) return 1 ;; esac
}
