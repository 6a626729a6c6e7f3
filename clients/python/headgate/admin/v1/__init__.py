"""Generated from proto/headgate/admin/v1; never edited. Regenerate with `make gen`."""
