"""A bad network for tests: a seeded UDP relay between WebRTC peers, and a signalling proxy that makes them use it.

`impairment` decides (pure, a seed and a clock), `relay` moves datagrams, `proxy` stands in front of the hub.
"""
