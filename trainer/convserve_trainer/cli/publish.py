"""The command convserve-train publish."""

import argparse
from pathlib import Path

from convserve_trainer.cli import sign_options
from convserve_trainer.cli.command import (
    BUNDLE_HELP,
    Command,
    add_version,
    always,
    models_option,
    open_store,
    print_line,
)

EPILOG = """examples:
  convserve-train publish models/mnist --models s3://bucket/models
  convserve-train publish models/mnist/4 --models s3://bucket/models --version 4
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.add_argument(
        "bundle", metavar="BUNDLE", type=Path, help=f"of any ONNX file: {BUNDLE_HELP}"
    )
    command.add_argument(
        "--models",
        metavar="DIR",
        type=models_option,
        required=True,
        help="folder of all models, or the URL of one on object storage, as s3://BUCKET/FOLDER",
    )
    command.add_argument(
        "--name",
        metavar="NAME",
        help="of the model [default: of the folder that BUNDLE's version lies in]",
    )
    add_version(command)
    sign_options.add(command, "sign-", required=False)


def run(options: argparse.Namespace) -> None:
    """Publishes a bundle that there is already into another folder, or onto object storage.

    Raises:
        BundleError: there is no bundle, or it is not what its digests say.
        PublishError: the version exists, or nothing can be written there.
        SigningError: the key cannot be used.
    """
    from convserve_bundle import digests_file, publish, verification
    from convserve_bundle.contract import MODEL_FILE, NAME_RULE, SIGNATURE_FILE, is_name
    from convserve_bundle.errors import BundleError
    from convserve_bundle.folder import find_bundle
    from convserve_trainer.errors import UsageError

    signer = sign_options.read(options, "sign-")
    model = find_bundle(options.bundle).resolve()
    folder = model.parent
    name = folder.parent.name if options.name is None else options.name
    if not is_name(name):
        raise UsageError(f"--name: {NAME_RULE}, got {name!r}")
    store = open_store(options.models)
    if store is not None:
        store.check_target(name, options.version, signer)
    else:
        publish.check_target(options.models, name, options.version, signer)
    try:
        verification.verify_bundle(model)
        files = digests_file.list_files(folder, digests_file.Statement({}))
    except BundleError as error:
        raise BundleError(f"{folder}: {error}") from error
    if signer is None and (folder / SIGNATURE_FILE).exists():
        print_line(
            f"{folder / SIGNATURE_FILE} is left out: it signs that folder; --sign-key signs the "
            "new one"
        )
    contents = {path: file.read_bytes() for path, file in files.items()}
    content = contents.pop(MODEL_FILE)
    if store is not None:
        where = store.publish(content, name, options.version, signer, contents)
    else:
        published = publish.publish(
            content, options.models, name, options.version, signer, contents
        )
        where = str(published.parent)
    print_line(f"published {where} ({len(content):,} bytes, {len(contents)} other files)")


COMMAND = Command(
    "publish",
    "publish a bundle into another folder, or onto object storage",
    EPILOG,
    add_options,
    run,
    always,
)
