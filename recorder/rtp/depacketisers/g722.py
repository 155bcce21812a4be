"""G.722 (RFC 3551 section 4.5.2): one byte two samples of 16 kHz, though RTP counts it as one of 8 kHz."""

from recorder.rtp.depacketisers.samples import Samples


def create() -> Samples:
    return Samples()
