"""Generated from proto/headgate/v1; never edited. Regenerate with `make gen`."""
