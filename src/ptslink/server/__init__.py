"""The link server: listener, connections, the registry of live controllers, the HTTP surface."""
