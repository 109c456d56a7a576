"""
Web addresses: how to ask for them, whose they are, and which of them lead into a private network.

Foundation of every stage that looks at an address. Uses no network and writes nothing.
"""

import ipaddress
import re
import socket
from urllib.parse import quote, urlsplit

from tldextract import TLDExtract
from yarl import URL

LONGEST_ADDRESS = 8_000  # characters; hosts accept no more
LEGAL = "%/:?@!$&'()*+,;=[]~"  # beside letters and digits, what an address may hold unquoted
NAT64 = ipaddress.ip_network("64:ff9b::/96")
PUBLIC_6 = ipaddress.ip_network("2000::/3")  # all public IPv6 addresses lie in here
LOCAL_NAMES = (
    *(".localhost", ".localdomain", ".local", ".internal", ".lan", ".home", ".corp", ".intranet", ".home.arpa"),
)
# Versions of Python differ on all but the first, which looks public: Azure answers it inside its own network.
NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("168.63.129.16", "192.0.0.0/24", "3fff::/20")))
USUAL_PORTS = (80, 443)  # of http and https
# The list that comes with the package, read when it is first needed; it asks no network and keeps no files.
PUBLIC_SUFFIXES = TLDExtract(suffix_list_urls=(), cache_dir=None, fallback_to_snapshot=True)


class RefusedAddress(Exception):
    """An address that our rules forbid; the message is the reason."""


def web_host(url: str) -> str:
    """
    Return the host that an http or https address names, "" for any other address.

    >>> web_host("https://Static.example.com:8080/a.png"), web_host("https://[broken"), web_host("file://disk/a.png")
    ('static.example.com', '', '')
    """
    try:
        parts = urlsplit(url)
        return (parts.hostname or "") if parts.scheme in ("http", "https") else ""
    except ValueError:  # such as http://[::1
        return ""


def registered_domain(url: str) -> str:
    """
    Return the domain that the owner of a web address registered, "" for any other address.

    Hosts of one domain belong together. A host without one, such as an IP address, stands for itself.

    >>> [registered_domain(url) for url in ("https://a.b.example.co.uk/x", "http://192.0.2.7:80/", "file:///c")]
    ['example.co.uk', '192.0.2.7', '']
    """
    host = web_host(url).rstrip(".")
    return PUBLIC_SUFFIXES(host).top_domain_under_public_suffix or host


def is_private(address: str) -> bool:
    """
    Return whether an IP address is private, loopback, link-local, metadata, reserved or multicast.

    >>> is_private("169.254.169.254"), is_private("::ffff:10.0.0.1"), is_private("93.184.216.34")
    (True, True, False)
    >>> is_private("64:ff9b::7f00:1"), is_private("64:ff9b::5db8:d822")  # how an IPv6 network reaches IPv4
    (True, False)
    >>> is_private("192.0.0.192")  # where some clouds keep passwords
    True
    """
    ip = ipaddress.ip_address(address.split("%")[0])
    if ip.version == 6:
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if not inner and ip not in PUBLIC_6:
            return True
        ip = inner or ip
    return not ip.is_global or ip.is_multicast or any(ip in network for network in NOT_PUBLIC)


def is_local_name(host: str) -> bool:
    """
    Return whether a host's name alone tells that it is private. Behind a proxy, which resolves names, we know no more.

    >>> [is_local_name(host) for host in ("localhost", "printer", "nas.local", "127.1", "[::1]", "example.org")]
    [True, True, True, True, True, False]
    """
    host = host.strip("[]").rstrip(".").lower()
    try:
        return is_private(host)
    except ValueError:
        pass
    try:
        return is_private(socket.inet_ntoa(socket.inet_aton(host)))  # 127.1 and 0x7f000001 are one host
    except OSError:
        return "." not in host or host.endswith(LOCAL_NAMES)


def host_name(host: str) -> str:
    """
    Return a host in the form in which hosts are compared: lower case, ASCII, an IPv6 address in its short form.

    >>> host_name("[FD00:0:0::1]"), host_name("Bücher.example.")
    ('fd00::1', 'xn--bcher-kva.example')
    """
    host = host.strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return URL.build(scheme="http", host=host).raw_host
    except ValueError:  # nothing that could be asked
        return host


def host_and_ports(text: str) -> tuple[str, tuple[int, ...]]:
    """
    Return the host that `text` names, as `host_name` writes it, and its ports: the one named there, or 80 and 443.

    >>> host_and_ports("NAS.local:8080"), host_and_ports("[::1]"), host_and_ports("fd00::1")
    (('nas.local', (8080,)), ('::1', (80, 443)), ('fd00::1', (80, 443)))

    Raises ValueError if it is not a host, or a host and a port from 1 to 65535.
    """
    named = re.fullmatch(r"(\[[\da-fA-F:.]+\]|[\da-fA-F.]*(?::[\da-fA-F.]*){2,}|[\w.-]+)(?::(\d{1,5}))?", text)
    port = int(named[2] or USUAL_PORTS[0]) if named else 0
    if not 0 < port < 2**16:
        raise ValueError(
            f'{text!r} is not the name of a host. Write it without http://, such as "nas.local", or with its port, '
            'such as "nas.local:8080"'
        )
    return host_name(named[1]), (port,) if named[2] else USUAL_PORTS


def spellings(url: str) -> list[str]:
    """
    Return how an address may have been written before a search client unquoted it.

    >>> spellings("https://example.org/a+b.jpg?q=c+d"), spellings("https://example.org/a.jpg")
    (['https://example.org/a%20b.jpg?q=c%20d'], [])
    >>> spellings("https://example.org/a%20b.jpg")
    ['https://example.org/a+b.jpg']
    """
    others = (url.replace("+", "%20").replace("#", "%23"), url.replace("%20", "+"))
    return [other for other in dict.fromkeys(others) if other != url]


def parsed(address: str) -> URL:
    """
    Return an address ready to ask for: legal characters stay as written; name, password and fragment are left out.

    >>> print(parsed("HTTP://me:secret@Bücher.example:80/a%2Fb+c%7E/schön 100%?q=%2B#top"))
    http://xn--bcher-kva.example/a%2Fb+c%7E/sch%C3%B6n%20100%25?q=%2B

    Raises `RefusedAddress` if it is not http or https, is too long, or has no valid host and port, and ValueError if it
    cannot be parsed.
    """
    if len(address) > LONGEST_ADDRESS:
        raise RefusedAddress(f"an address too long to ask for ({len(address):,} characters)")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        raise RefusedAddress(f"{parts.scheme or 'no'}: address, not http or https")
    if not parts.hostname or "%" in parts.hostname or parts.port == 0:
        raise RefusedAddress("an address without a valid host and port")
    site = URL.build(scheme=parts.scheme, host=parts.hostname, port=parts.port)
    rest = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    rest = re.sub("%(?![0-9A-Fa-f]{2})", "%25", rest)
    # Header bytes that were not UTF-8 came as surrogates; they go out as the bytes they were.
    return URL(f"{site}{quote(rest, safe=LEGAL, errors='surrogateescape')}", encoded=True)
