"""The names that every program uses for a bundle: of files, versions, tensors and the manifest.

Input `pixels`: uint8 [N, H, W, C], scaled inside the graph. Output `probabilities`: float32
[N, K], in the order of the labels. `Manifest.output` says what a row of it is.
"""

import re

#: The file of a bundle, in the folder of its version.
MODEL_FILE = "model.onnx"
#: Beside it: the digests of all files of the folder, and a signature of them; see digests_file.
DIGESTS_FILE = "digests.json"
SIGNATURE_FILE = "model.sig"
#: In the folder of a model: which version each label names; see labels_file.
LABELS_FILE = "labels.json"
#: The label whose version answers calls that ask for none, where that is what counts.
STABLE = "stable"

INPUT = "pixels"
OUTPUT = "probabilities"
#: The axis of both that counts images.
BATCH_AXIS = "N"

#: Key of the entry of the ONNX file's metadata that holds the manifest, as JSON.
MANIFEST_KEY = "convserve.manifest"
#: Layout of the bundle, in `Manifest.format`.
FORMAT = 1
#: The same for all outputs but a softmax: programs that are older than `Manifest.output` would take
#: each row for a distribution, and refuse a layout that they do not know.
FORMAT_WITH_OUTPUT = 2

_NAME_FORM = "1 to 64 of A-Z a-z 0-9 . _ -, beginning with A-Z a-z 0-9"
NAME_RULE = f"expected as a model's name {_NAME_FORM}"
#: Of a label that the operator gives to a version; is_name() checks it.
LABEL_RULE = f"expected as a label {_NAME_FORM}"
VERSION_RULE = "expected as a version 1, 2, 3 and so on, at most 18 digits"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


def is_name(text: str) -> bool:
    """Returns whether a text is a valid name of a model, or a label of a version."""
    return bool(_NAME.fullmatch(text))


def is_version(text: str) -> bool:
    """Returns whether a text is a valid version, the name of its folder."""
    return bool(_VERSION.fullmatch(text))
