"""
Addresses of the web: how they are asked for, and whether they lead where a stranger's picture should not be from.

Foundation of all that looks at an address. Reads and writes nothing.
"""

import ipaddress
import re
import socket
from urllib.parse import quote, urlsplit

from yarl import URL

LONGEST = 8_000  # characters of an address; hosts take no longer ones
LEGAL = "%/:?@!$&'()*+,;=[]~"  # with letters and digits, what may stand in an address as it is
NAT64 = ipaddress.ip_network("64:ff9b::/96")
PUBLIC_6 = ipaddress.ip_network("2000::/3")  # no other IPv6 address is anybody's in public
LOCAL_NAMES = (".localhost", ".local", ".internal", ".lan", ".home", ".corp", ".intranet", ".home.arpa")
METADATA = (ipaddress.ip_address("168.63.129.16"),)  # a public address, but answered inside Azure; others are local


class Refused(Exception):
    """An address that is not to be asked; the message is the reason."""


def web_host(url: str) -> str:
    """
    Return the host that an http or https address names, "" for one that is not of the web.

    >>> web_host("https://Static.example.com:8080/a.png"), web_host("https://[broken"), web_host("file://disk/a.png")
    ('static.example.com', '', '')
    """
    try:
        parts = urlsplit(url)
        return (parts.hostname or "") if parts.scheme in ("http", "https") else ""
    except ValueError:  # such as http://[::1
        return ""


def is_private(address: str) -> bool:
    """
    Return whether an IP address is no public one: private, loopback, link-local, metadata, reserved, multicast.

    >>> is_private("169.254.169.254"), is_private("::ffff:10.0.0.1"), is_private("93.184.216.34")
    (True, True, False)
    >>> is_private("64:ff9b::7f00:1"), is_private("64:ff9b::5db8:d822")  # a net of IPv6 alone speaks to IPv4 like this
    (True, False)
    """
    ip = ipaddress.ip_address(address.split("%")[0])
    if ip.version == 6:
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if not inner and ip not in PUBLIC_6:
            return True
        ip = inner or ip
    return not ip.is_global or ip.is_multicast or ip in METADATA


def is_local_name(host: str) -> bool:
    """
    Return whether a host is private by its name alone, as it must be judged where a proxy resolves names.

    >>> [is_local_name(host) for host in ("localhost", "printer", "nas.local", "127.1", "[::1]", "example.org")]
    [True, True, True, True, True, False]
    """
    host = host.strip("[]").rstrip(".").lower()
    try:
        return is_private(host)
    except ValueError:
        pass
    try:
        return is_private(socket.inet_ntoa(socket.inet_aton(host)))  # 127.1, 0x7f000001 and 2130706433 are one host
    except OSError:
        return "." not in host or host.endswith(LOCAL_NAMES)


def host_name(host: str) -> str:
    """
    Return a host as it is compared: in lower case, in ASCII, an IPv6 address in its short form.

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
    except ValueError:  # no host that could be asked
        return host


def spellings(url: str) -> list[str]:
    """
    Return an address as it may have been before a search client unquoted it.

    >>> spellings("https://example.org/a+b.jpg?q=c+d"), spellings("https://example.org/a.jpg")
    (['https://example.org/a%20b.jpg?q=c%20d'], [])
    >>> spellings("https://example.org/a%20b.jpg")
    ['https://example.org/a+b.jpg']
    """
    others = (url.replace("+", "%20").replace("#", "%23"), url.replace("%20", "+"))
    return [other for other in dict.fromkeys(others) if other != url]


def parsed(address: str) -> URL:
    """
    Return an address as it is asked for: what is legal stays as it was written, without name, password and fragment.

    >>> print(parsed("HTTP://me:secret@Bücher.example:80/a%2Fb+c%7E/schön 100%?q=%2B#top"))
    http://xn--bcher-kva.example/a%2Fb+c%7E/sch%C3%B6n%20100%25?q=%2B

    Raises
    ------
    Refused
        If it is none of the web's, or without a host and port to ask.
    ValueError
        If it is no address.
    """
    if len(address) > LONGEST:
        raise Refused(f"an address too long to ask for ({len(address):,} characters)")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        raise Refused(f"{parts.scheme or 'no'}: address, not http or https")
    if not parts.hostname or "%" in parts.hostname or parts.port == 0:
        raise Refused("an address without a valid host and port")
    site = URL.build(scheme=parts.scheme, host=parts.hostname, port=parts.port)
    rest = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    rest = re.sub("%(?![0-9A-Fa-f]{2})", "%25", rest)
    # Bytes of a header that are no UTF-8 came as surrogates, and go out as what they were.
    return URL(f"{site}{quote(rest, safe=LEGAL, errors='surrogateescape')}", encoded=True)
