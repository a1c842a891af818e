"""A guide whose commands fail, or answer something else than it shows, makes its test fail."""

from pathlib import Path

import pytest

from tests.lab import guides

ID = "01a22f10-f90d-7c9e-9986-118b0495d73b"


def page(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "page.md"
    path.write_text(text.replace("~~~", "```"))
    return path


def follow(tmp_path: Path, text: str) -> None:
    guides.follow(page(tmp_path, text), tmp_path, {"PATH": "/usr/bin:/bin"}, "127.0.0.1:9")


GOOD = f"""
~~~sh
name=world
~~~
~~~python
# made.py
print("made")
~~~
~~~
$ echo "hello
      $name"
hello
      world
$ echo 127.0.0.1:8000 {ID}; \\
      seq 3
127.0.0.1:8000 {ID.replace("f", "e")}
...
3
$ for file in *.py; do
      cat $file
  done
# made.py
print("made")
$ true
~~~
"""


def test_a_page_that_says_what_is_so_is_followed_to_its_end(tmp_path: Path) -> None:
    follow(tmp_path, GOOD)
    assert [step.line for step in guides.steps(GOOD.replace("~~~", "```"))] == [3, 6, 10, 14, 19, 24]


@pytest.mark.parametrize(
    "step",
    [
        "$ false",
        "$ false | cat",
        "$ curl -sS http://127.0.0.1:9/ -o /dev/null",
        "$ echo hello\nhell",
        "$ echo hello",
        "$ true\nhello",
        '$ echo \'{"code": "a"}\'\n{"code": "b"}',
        "$ echo 200\n404",
        "$ echo id\n" + ID,
        "$ exit",
    ],
)
def test_a_step_that_fails_or_answers_otherwise_is_told_with_its_place(tmp_path: Path, step: str) -> None:
    with pytest.raises(AssertionError, match=r"page\.md"):
        follow(tmp_path, f"~~~\n$ true\n{step}\n$ true\n~~~\n")


@pytest.mark.parametrize("block", ["~~~json\n{}\n~~~\n", "~~~\n# whoami\n~~~\n", "~~~python\nprint()\n~~~\n"])
def test_a_block_that_nobody_would_run_is_refused(tmp_path: Path, block: str) -> None:
    with pytest.raises(ValueError, match="line 2: "):
        follow(tmp_path, block)
