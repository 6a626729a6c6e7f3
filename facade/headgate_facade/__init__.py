"""The REST front doors: dialects in front of a `headgate.ChatCore`, and nothing of the core itself."""
