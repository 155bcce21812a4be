"""One file per storage vendor; see `storage`."""
