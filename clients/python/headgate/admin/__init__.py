"""Administration: generated stubs in `v1`."""
