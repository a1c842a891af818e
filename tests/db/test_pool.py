"""No thread of a worker waits for a connection that another one has, the watching ones least of all."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection
from django.db.utils import ConnectionHandler

from deploy.pool import OF_OUR_OWN, pool_for
from jobs.lanes import THREADS

pytestmark = pytest.mark.skipif("connection.vendor != 'postgresql'", reason="only PostgreSQL's connections are pooled")


def test_all_threads_of_a_worker_have_a_connection_at_the_same_time(transactional_db: None) -> None:
    settings = connection.settings_dict | {"OPTIONS": connection.settings_dict["OPTIONS"] | {"pool": pool_for(THREADS)}}
    handler = ConnectionHandler({"default": settings})
    number = THREADS + OF_OUR_OWN
    together = threading.Barrier(number, timeout=20)

    def hold(_: int) -> int:
        with handler["default"].cursor() as cursor:
            cursor.execute("SELECT 1")
            together.wait()
        handler["default"].close()
        return 1

    try:
        with ThreadPoolExecutor(number) as threads:
            assert sum(threads.map(hold, range(number))) == number
    finally:
        handler["default"].close_pool()
