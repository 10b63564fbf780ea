"""A PTS-2 controller in software: faithful by default, able to misbehave.

``head`` builds the handshake, ``forecourt`` and ``packets`` the data, ``device`` is the controller
without I/O, ``confirmation`` and ``commands`` judge and answer what the server says, ``wire``
frames it, ``run`` is the only part that opens sockets.
"""
