"""Proxies of the environment: what the WebSocket would pass over or misread is refused at the
start, in one line without credentials."""

import signal

import pytest

from infra.cli.main import main
from infra.ingest.producer_process import endpoint_of
from producers.transport.endpoint import LIVE_URL
from producers.vendor.proxy import BadProxy, check_proxy

KEY = "k3y-of-nobody"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize(
    "proxy",
    [
        "proxy:3128",
        "secret:hidden@proxy:3128",
        "socks5://secret:hidden@proxy:1080",
        "SOCKS5H://proxy:1080",
        "https://secret:hidden@proxy:3128",
        "http:proxy",
        "http://",
        "http://proxy:port",
        "http://proxy:99999",
        "http://secret:1#hidden@proxy:3128",
        "http://secret:1/hidden@proxy:3128",
        "secret:hidden://proxy",
        "ftp://proxy:3128",
        "//proxy:3128",
    ],
)
def test_proxy_that_the_websocket_cannot_use_is_refused_without_its_credentials(
    name, proxy, environment
):
    environment.setenv(name, proxy)
    with pytest.raises(BadProxy, match=rf"^{name} .*: write http://HOST:PORT") as raised:
        endpoint_of(KEY, None)
    assert "secret" not in str(raised.value)
    assert "hidden" not in str(raised.value)
    # it stands before the vendor's host alone
    check_proxy("ws://127.0.0.1:8765/ws")


@pytest.mark.parametrize("scheme", ["https", "socks4", "socks5h"])
def test_refusal_names_the_kind_of_proxy_where_it_is_known(scheme, environment):
    environment.setenv("HTTPS_PROXY", f"{scheme}://secret@proxy:1080")
    with pytest.raises(
        BadProxy, match=f"names a proxy of {scheme}, which the WebSocket cannot use"
    ):
        endpoint_of(KEY, None)


@pytest.mark.parametrize(
    "proxy",
    [
        "http://proxy:3128",
        "HTTP://user:p%40ss@proxy:3128",
        "http://[::1]:3128/",
        "http://proxy",
        "",
        " ",
    ],
)
def test_http_proxy_is_taken(proxy, environment):
    environment.setenv("HTTPS_PROXY", proxy)
    assert endpoint_of(KEY, None).base_url == LIVE_URL


@pytest.mark.parametrize(
    "excepted",
    [
        "*.infoway.io",
        "example.org, *.infoway.io",
        "data.infoway.io:443",
        "https://data.infoway.io",
        "Infoway.io",
    ],
)
def test_exception_that_the_websocket_does_not_read_is_refused(excepted, environment):
    environment.setenv("HTTPS_PROXY", "http://proxy:3128")
    environment.setenv("NO_PROXY", excepted)
    with pytest.raises(
        BadProxy, match=r"^NO_PROXY excepts data.infoway.io .*: write data.infoway.io"
    ):
        endpoint_of(KEY, None)


@pytest.mark.parametrize(
    "excepted", ["data.infoway.io", "infoway.io", ".infoway.io", "a, data.infoway.io", "*"]
)
def test_proxy_does_not_matter_to_an_excepted_host(excepted, environment):
    environment.setenv("HTTPS_PROXY", "socks5://proxy:1080")
    environment.setenv("NO_PROXY", excepted)
    endpoint_of(KEY, None)


@pytest.mark.parametrize(
    "excepted", ["*.example.org", "data.infoway.io:8443", "::1", "10.0.0.0/8", "*infoway.example"]
)
def test_exception_of_another_host_is_no_matter(excepted, environment):
    environment.setenv("HTTPS_PROXY", "http://proxy:3128")
    environment.setenv("NO_PROXY", excepted)
    endpoint_of(KEY, None)


@pytest.mark.parametrize("command", [["record", "--out", "out"], ["produce"], ["up"]])
def test_commands_end_with_one_line_before_anything_is_started(command, environment, tmp_path):
    environment.chdir(tmp_path)
    environment.setattr(signal, "signal", lambda *_: None)
    environment.setenv("INFOWAY_API_KEY", KEY)
    environment.setenv("HTTPS_PROXY", "proxy:3128")
    environment.setenv("INFOWAY_BOOTSTRAP", "127.0.0.1:1")
    environment.setenv("INFOWAY_REGISTRY", "http://127.0.0.1:1")
    with pytest.raises(
        SystemExit,
        match=r"^infoway-streams: HTTPS_PROXY is no address of an HTTP proxy: write "
        r"http://HOST:PORT",
    ):
        main([*command, "--symbols", "BTCUSDT"])
    assert list(tmp_path.iterdir()) == []
