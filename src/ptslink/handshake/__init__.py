"""The opening handshake: reading an HTTP head, judging an Upgrade, rendering the answer.

Pure and standard library only: the probe imports it on machines where nothing is installed.
"""
