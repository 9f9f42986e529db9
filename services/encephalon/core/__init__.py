"""What every service stands on: errors, the wire, serving, mailboxes, settings, logs and metrics.

Knows nothing of brains, stores or networks.
"""
