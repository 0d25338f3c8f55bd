"""The runner protocol and the management API over HTTP."""
