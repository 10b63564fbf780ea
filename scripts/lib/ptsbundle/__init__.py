"""One file that provisions a machine without Internet: made, signed, verified, unpacked.

Standard library only: verification runs with whatever Python runs Ansible.

| Module | Does |
|---|---|
| ``layout`` | names inside a bundle, and what is asked of Debian; pure |
| ``archive`` | writing a bundle that only content decides, reading one that nobody changed |
| ``signature`` | ssh-keygen -Y |
| ``debian`` | the packages of a suite, resolved in the lab's root file system |
| ``content`` | wheelhouses, collections and the project itself |
| ``cli`` | scripts/bundle |
"""


class BundleError(Exception):
    """Something that ends the work; the message says what and how to mend it."""


class Refused(BundleError):
    """A bundle that must not be used."""
