"""Start the web process: one uvicorn, our logging, proxies trusted only where named."""

import os

import uvicorn

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deploy.settings")


def main() -> None:
    from django.conf import settings

    host, port = settings.ENV.listen
    uvicorn.run(
        "deploy.asgi:application",
        host=host,
        port=port,
        http="httptools",
        lifespan="off",  # Django has none
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.ENV.trusted_proxies),
        forwarded_allow_ips=list(settings.ENV.trusted_proxies),
        timeout_graceful_shutdown=3,  # without it an open event stream keeps the process alive
    )


if __name__ == "__main__":
    main()
