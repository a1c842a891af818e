"""Names of instances: the MTA's where it is the only one, given once and kept."""

from dataclasses import replace

from fleet.mta.host.names import given_names
from fleet.mta.records import InstanceFacts


def postfix(directory: str, name: str = "") -> InstanceFacts:
    """As its adapter finds it, or as it is known by `name`."""
    last = directory.rpartition("/")[2]
    return InstanceFacts("mx1", name or last, "postfix", "3.7.11", directory, (f"/var/spool/{last}",))


def sendmail(file: str, name: str = "", queue: str = "/var/spool/mqueue") -> InstanceFacts:
    """As `postfix`."""
    options = {"config_file": f"/etc/mail/{file}.cf"}
    return InstanceFacts("mx1", name or file, "sendmail", "8.17", "/etc/mail", (queue,), options=options)


EXIM = InstanceFacts("mx1", "exim", "exim", "4.96", "/etc/exim4", ("/var/spool/exim4",))
DEFAULT, EXTERNAL = postfix("/etc/postfix"), postfix("/etc/postfixEXT")


def names(found: list[InstanceFacts], known: list[InstanceFacts], former: tuple[str, ...] = ()) -> list[str]:
    """What the found ones are called."""
    return [each.name for each in given_names(found, known, former)]


def test_the_only_one_of_an_mta_has_its_name_wherever_its_configuration_is() -> None:
    assert names([postfix("/opt/mail/conf"), EXIM, sendmail("relay")], []) == ["postfix", "exim", "sendmail"]


def test_several_of_an_mta_are_called_by_the_last_part_of_their_configuration() -> None:
    assert names([DEFAULT, EXTERNAL], []) == ["postfix", "postfixEXT"]
    assert names([sendmail("sendmail"), sendmail("sendmail-ext", queue="/q")], []) == ["sendmail", "sendmail-ext"]


def test_a_second_configuration_directory_renames_nothing() -> None:
    first = given_names([postfix("/etc/mail-in")], [])
    assert names([postfix("/etc/mail-in"), EXTERNAL], [*first]) == ["postfix", "postfixEXT"]
    assert names([EXTERNAL, postfix("/etc/mail-in")], [*first]) == ["postfixEXT", "postfix"]


def test_one_that_is_left_alone_keeps_the_name_that_it_has() -> None:
    assert names([EXTERNAL], [DEFAULT, EXTERNAL]) == ["postfixEXT"]


def test_a_name_that_another_one_has_or_had_is_not_given_again() -> None:
    known = [postfix("/etc/mail-in", "postfix")]
    assert names([DEFAULT], known) == ["postfix-2"], "the one that is gone may come back"
    assert names([DEFAULT, postfix("/opt/postfix")], known) == ["postfix-2", "postfix-3"]
    assert names([EXTERNAL], [DEFAULT], ("postfixEXT",)) == ["postfixEXT-2"], "who says so means the other one"
    assert names([replace(DEFAULT, name="exim")], [EXIM, postfix("/etc/x")]) == ["exim-2"]


def test_a_name_that_is_as_long_as_may_be_has_room_for_its_number() -> None:
    long = postfix(f"/etc/{'x' * 63}")
    assert names([long], [replace(long, config_dir="/etc/y", queue_dirs=())]) == [f"{'x' * 60}-2"]


def test_a_configuration_that_moved_leaves_the_instance_of_its_queue() -> None:
    moved = replace(DEFAULT, name="conf", config_dir="/opt/mail/conf")
    assert names([moved], [EXTERNAL, DEFAULT]) == ["postfix"]
    assert names([sendmail("backup"), sendmail("other", queue="/q")], [sendmail("sendmail")]) == ["sendmail", "other"]


def test_a_queue_that_moved_leaves_the_instance_of_its_configuration() -> None:
    assert names([replace(EXIM, queue_dirs=("/srv/exim",))], [replace(EXIM, name="exim4")]) == ["exim4"]


def test_of_two_that_fit_the_one_that_is_named_first_is_meant() -> None:
    known = [replace(EXIM, name="exim"), replace(EXIM, name="exim4")]
    assert names([EXIM], known) == ["exim"]
    assert names([EXIM], known[::-1]) == ["exim4"]


def test_queues_of_which_nothing_is_known_tell_nothing() -> None:
    assert names([replace(EXTERNAL, queue_dirs=())], [replace(DEFAULT, queue_dirs=())]) == ["postfixEXT"]


def test_another_mta_with_the_same_directories_is_another_instance() -> None:
    assert names([replace(EXIM, mta="postfix", name="exim4")], [EXIM]) == ["postfix"]
