"""Row M6: URLs that lead to this machine, to a network inside, or to where clouds keep their secrets, in every notation.

None of them may make the service open a connection.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Final

_INSIDE: Final = ("127.0.0.1", "127.8.9.10", "10.1.2.3", "172.16.5.6", "192.168.1.1", "169.254.169.254", "100.100.100.200", "192.0.0.192")
_WIDE: Final = str.maketrans("0123456789", "\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19")


def hostile_urls(port: int) -> list[str]:
    """Each once. `port`: where somebody listens on every address of this machine, to see whether anything comes."""
    written = [form.replace("{port}", str(port)) for form in _WRITTEN]
    made = [
        f"{scheme}://{host}:{port}/" for address in _INSIDE for host in _notations(IPv4Address(address)) for scheme in ("http", "https")
    ]
    return list(dict.fromkeys([*written, *made]))


def _notations(address: IPv4Address) -> Iterator[str]:
    number, (a, b, c, d) = int(address), address.packed
    yield from (str(address), f"{address}.", str(number), f"0x{number:x}", f"0X{number:08X}", f"0{number:o}")
    yield from (f"{a}.{(b << 16) + (c << 8) + d}", f"{a}.{b}.{(c << 8) + d}", f"0x{a:x}.{b}.0{c:o}.{d}")
    yield from (f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}", f"{a:04o}.{b:04o}.{c:04o}.{d:04o}")
    yield from (str(address).translate(_WIDE), str(address).replace(".", "\u3002"), str(address).replace(".", "\uff0e"))
    yield "".join(f"%{ord(letter):02x}" for letter in str(address))
    high, low = f"{(a << 8) + b:x}", f"{(c << 8) + d:x}"
    for prefix in ("::ffff:", "0:0:0:0:0:ffff:", "::", "64:ff9b::", "64:ff9b:1::", "::ffff:0:"):
        yield f"[{prefix}{high}:{low}]"
        yield f"[{prefix}{address}]"
    yield f"[2002:{high}:{low}::1]"
    yield f"[2001:0:7f00:1::{(a << 8) + b ^ 0xFFFF:x}:{(c << 8) + d ^ 0xFFFF:x}]"  # Teredo hides the client's address
    yield f"[fe80::5efe:{high}:{low}]"  # ISATAP


_WRITTEN: Final = (
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST.:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0x0.0x0.0x1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://\u2460\u2461\u2466.0.0.1:{port}/",
    "http://127\u30020\u30020\u30021:{port}/",
    "http://\uff11\uff12\uff17.0.0.1:{port}/",
    "http://8.8.8.8@127.0.0.1:{port}/",
    "http://user:pw@127.0.0.1:{port}/",
    "http://8.8.8.8:80@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@8.8.8.8/",
    "http://127.0.0.1:{port}?@8.8.8.8/",
    "http://127.0.0.1:{port}\\@8.8.8.8/",
    "http://8.8.8.8\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}/\r\nHost: x",
    "http://127.0.0.1\r\n:{port}/",
    "http://127.0.0.1\t:{port}/",
    " http://127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "https://127.0.0.1:{port}/",
    "HTTP://127.0.0.1:{port}/",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_GET%20/",
    "file:///etc/passwd",
    "file://127.0.0.1/etc/passwd",
    "dict://127.0.0.1:{port}/",
    "data:image/png;base64,iVBORw0KGgo=",
    "unix:/tmp/socket",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://0xa9fea9fe/",
    "http://2852039166/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://100.100.100.200/",
    "http://[fe80::1]/",
    "http://[fc00::1]/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://127.0.0.1:22/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:-1/",
    "http://[127.0.0.1]:{port}/",
    "http://[::1/",
    "http://0x7f.1:{port}/",
    "http://00000177.0.0.1:{port}/",
    "http://[::ffff:0:127.0.0.1]:{port}/",
    "http://[64:ff9b:1::7f00:1]:{port}/",
    "http://[2001:0:7f00:1::]:{port}/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://192.0.0.192/latest/",
    "http://198.18.0.1/",
    "http://240.0.0.1/",
    "http://",
    "",
)
