"""What the extra s3 brings may be shipped."""

from tests.test_licences import test_packages_have_licences_that_allow_what_we_do as check


def test_packages_of_s3_have_licences_that_allow_what_we_do() -> None:
    check("serve-s3.txt")
