"""The bodies of the public API. Wire names live in this package alone; everything else speaks `recorder.spec`."""
