# shellcheck shell=sh
# What stands first in every script, before it runs any program: nothing that the caller's environment says decides which
# programs root runs, where temporary files lie, who can read what is made, or in which language a program answers.
set -u
PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin
LC_ALL=C
export LC_ALL PATH
umask 077
unset CDPATH ENV BASH_ENV TMPDIR MAIL_CONFIG PERL5OPT PERL5LIB
