"""RFC 6455 to the letter: the Autobahn TestSuite against the server's own connection code."""
