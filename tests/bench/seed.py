"""Fill a fresh database with the farm's hosts: `python -m tests.bench.seed FARM PORT COUNT LARGE`.

To be run in the service's environment.
Customers are `of50`, `of200` ...: a host belongs to the smallest that has it, so that a target names a few of them.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deploy.settings")

import django

SIZES = (1, 50, 200, 500)


def main(directory: Path, port: int, count: int, large: int) -> None:
    django.setup()
    from deploy import prepare

    prepare.main()
    small = [(f"mx{number:03d}", _address(number), _customer(number), "small") for number in range(count)]
    big = [(f"big{number:03d}", _address(number), "large", "large") for number in range(large)]
    _fill(directory, port, [*small, *big])


def _address(number: int) -> str:
    return f"127.77.{number // 250}.{number % 250 + 1}"


def _customer(number: int) -> str:
    return next(f"of{size}" for size in SIZES if number < size)


def _fill(directory: Path, port: int, hosts: list[tuple[str, str, str, str]]) -> None:
    from fleet.models import Credential, Customer, Host, Instance
    from fleet.secrets import seal_credential
    from tests.ssh.sshd import public

    slugs = sorted({slug for _, _, slug, _ in hosts})
    credentials = {}
    for slug in slugs:
        customer = Customer.objects.create(slug=slug, name=slug)
        credential = Credential(customer=customer, name="farm", public_key=public(directory / "client"))
        seal_credential(credential, (directory / "client").read_bytes())
        credential.save()
        credentials[slug] = credential
    rows = Host.objects.bulk_create(
        Host(
            customer=credentials[slug].customer,
            name=name,
            address=address,
            port=port,
            username="root",
            credential=credentials[slug],
            host_key=public(directory / "host_ed25519"),
        )
        for name, address, slug, _ in hosts
    )
    Instance.objects.bulk_create(
        Instance(
            host=row,
            name="postfix",
            mta="postfix",
            version="3.7.11",
            config_dir="/etc/postfix",
            queue_dirs=["/var/spool/postfix"],
            options={"command_directory": str(directory / size)},
        )
        for row, (_, _, _, size) in zip(rows, hosts, strict=True)
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
