from ptslink.handshake.accept import accept_value


def test_the_example_of_rfc_6455() -> None:
    assert accept_value("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_a_key_that_is_not_base64_has_an_accept_value_too() -> None:
    assert accept_value("test") == "tNpbgC8ZQDOcSkHAWopKzQjJ1hI="
