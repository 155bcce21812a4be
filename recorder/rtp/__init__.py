"""RTP without aiortc's receivers: the tap below it, packets, depacketisers, jitter buffer, receiver."""
