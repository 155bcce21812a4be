"""Things beside the service: publishers with measurable content, and measuring of recordings."""
