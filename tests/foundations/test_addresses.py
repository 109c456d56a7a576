"""Addresses: asked for as they were written, hosts compared in one form, none of them private unless allowed."""

import socket
import subprocess
import sys

import pytest
from standin_host import picture, serving, without_proxy

from utils.addresses import (
    LONGEST_ADDRESS,
    RefusedAddress,
    host_and_ports,
    host_name,
    is_local_name,
    is_private,
    parsed,
    registered_domain,
)
from utils.download.fetch import Rules
from utils.download.queue import fetching
from utils.project import REPOSITORY


@pytest.mark.parametrize(
    "first, second",
    [
        ("fd00:0:0::1", "[FD00::1]"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--BCHER-kva.example"),
        ("photos.local.", "Photos.Local"),
        ("::ffff:10.0.0.1", "::ffff:a00:1"),
        ("my_nas.local", "MY_NAS.local"),
    ],
)
def test_spellings_of_one_host_are_one(first, second):
    """However a host is written, in a setting or in an address, it is the same."""
    assert host_name(first) == host_name(second)


@pytest.mark.parametrize("first, second", [("localhost", "127.0.0.1"), ("a.example", "b.example"), ("127.1", "::1")])
def test_other_hosts_are_others(first, second):
    """Nothing is allowed by what it leads to: a name is not its address."""
    assert host_name(first) != host_name(second)


@pytest.mark.parametrize(
    "allowed, asked",
    [("0:0:0:0:0:0:0:1", "[::1]"), ("xn--bcher-kva.example", "BÜCHER.example"), ("A.example", "a.example.")],
)
def test_an_allowed_host_is_asked_however_it_is_written(monkeypatch, allowed, asked):
    """A private host that is allowed in one spelling is fetched from in the other."""
    without_proxy(monkeypatch)

    async def home(self, host, port, **options):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.getaddrinfo", home)
    with serving() as host:
        monkeypatch.setenv("http_proxy", host.proxy)
        with fetching([(1, f"http://{asked}/photo/1", "")], Rules([allowed])) as outcomes:
            ((_, outcome),) = outcomes
    assert (outcome.status, outcome.reason, outcome.data) == ("kept", "", picture(1))


def test_an_address_may_be_long_but_not_endless():
    """One character more than hosts take is refused, by a reason that begins alike for all."""
    site = "http://pictures.example/"
    assert len(str(parsed(site + "x" * (LONGEST_ADDRESS - len(site))))) == LONGEST_ADDRESS
    with pytest.raises(RefusedAddress, match=r"^an address too long to ask for \(8,001 characters\)$"):
        parsed(site + "x" * (LONGEST_ADDRESS + 1 - len(site)))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.b.example.com/x.jpg?y", "example.com"),
        ("http://EXAMPLE.com.:8080/", "example.com"),
        ("https://photos.example.co.uk/1", "example.co.uk"),
        ("https://www.city.kawasaki.jp/1", "city.kawasaki.jp"),
        ("https://www.example.gov.br/1", "example.gov.br"),
        ("https://www.müller.de/1", "müller.de"),
        ("https://co.uk/1", "co.uk"),
        ("https://localhost/1", "localhost"),
        ("http://192.0.2.7/a", "192.0.2.7"),
        ("http://[2001:db8::1]/a", "2001:db8::1"),
        ("http://[broken/a", ""),
        ("sample:tilapia/000.jpg#0", ""),
        ("", ""),
    ],
)
def test_the_registered_domain_of_an_address(url, expected):
    """By the list of public suffixes: one part more than the suffix; a host without one stands for itself."""
    assert registered_domain(url) == expected


def test_the_list_of_public_suffixes_asks_nobody_and_writes_nothing(tmp_path):
    """It is the package's own: a new account without a network gets the same answer, and no cache."""
    work = "from utils.addresses import registered_domain; print(registered_domain('https://a.example.co.uk/'))"
    with serving() as host:
        settings = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), host.proxy)
        settings |= {"HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", work]
        done = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("example.co.uk\n", "")
        assert host.asked == [] and list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "100.64.0.1", "127.0.0.1", "168.63.129.16", "fe80::1%eth0", "fd00::1", "2002:7f00:1::", "::"),
        *("192.0.0.9", "192.0.0.10", "192.0.0.192", "::ffff:192.0.0.9", "3fff::1"),
    ],
)
def test_private_addresses(address):
    """Of nets at home, of providers, of this machine and of clouds; also within IPv6."""
    assert is_private(address)


@pytest.mark.parametrize("name", ["a.localdomain", "A.LocalDomain.", "nas.home.arpa", "printer", "localdomain"])
def test_names_at_home(name):
    """Names that no name server of the world knows lead into the network at home."""
    assert is_local_name(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bücher.example:81", ("xn--bcher-kva.example", (81,))),
        ("[FD00:0::1]:8080", ("fd00::1", (8080,))),
        ("[fd00::1]", ("fd00::1", (80, 443))),
        ("10.0.0.1:8080", ("10.0.0.1", (8080,))),
    ],
)
def test_a_host_may_name_its_port(text, expected):
    """Without one, it is that of http and that of https."""
    assert host_and_ports(text) == expected


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"])
def test_public_addresses(address):
    """What everybody can reach."""
    assert not is_private(address)
