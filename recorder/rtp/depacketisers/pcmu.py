"""G.711 µ-law (RFC 3551 section 4.5.14): one byte a sample."""

from recorder.rtp.depacketisers.samples import Samples


def create() -> Samples:
    return Samples()
