"""jsonPTS: the envelope, its packets and their confirmations.

Pure: no sockets, no files, no clock. Rules are those of the PTS-2 protocol reference, section 2.
"""
