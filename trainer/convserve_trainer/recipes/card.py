"""What a recipe says for the card of its models: what they are for, and under which licence.

It decides nothing of a training.
"""

import re

from msgspec import Struct, structs

from convserve_host.arguments import did_you_mean

_IDENTIFIERS = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear
c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0
cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl
ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1
lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa
unlicense zlib pddl lgpl-lr unknown other
"""
#: Identifiers that Hugging Face knows, but for those that are for certain models only.
#: Source: https://huggingface.co/docs/hub/repositories-licenses.
LICENCES = frozenset(_IDENTIFIERS.split())
OTHER = "other"  # one that Hugging Face does not know: it needs a name and a link

MOST = 2_000  # characters of a field: a manifest goes to every client that asks for it


class Card(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields of a model card; each is text, empty where nothing is stated.

    Attributes:
        licence: of the model, as Hugging Face identifies it.
        licence_name: an identifier of a licence that is "other".
        licence_link: where to read that one: a URL, or LICENSE for a file beside the card.
        intended_use: what the model is for.
        out_of_scope: what it must not be used for.
        limitations: what it does badly, and for whom that matters.
        data_set: name of the data that it was trained on.
    """

    licence: str = ""
    licence_name: str = ""
    licence_link: str = ""
    intended_use: str = ""
    out_of_scope: str = ""
    limitations: str = ""
    data_set: str = ""

    def check(self, where: str = "card.") -> None:
        """Checks that the fields say what a card can say.

        Args:
            where: text before the name of a field in a message.

        Raises:
            ValueError: one does not.
        """
        for name, text in structs.asdict(self).items():
            if unfit := re.search(r"[^\S \n]|[^\n\x20-\x7e\x80-\U0010ffff]", text):
                raise ValueError(f"{where}{name}: expected printable text, got {unfit[0]!r} in it")
            if len(text) > MOST:
                raise ValueError(
                    f"{where}{name}: expected {MOST:,} characters or less, got {len(text):,}"
                )
        for name in ("licence", "licence_name", "licence_link", "data_set"):
            if "\n" in getattr(self, name):
                raise ValueError(f"{where}{name}: expected one line, got several")
        if self.licence and self.licence not in LICENCES:
            raise ValueError(
                f"{where}licence: expected an identifier of Hugging Face's, or other, got "
                f"{self.licence!r}{did_you_mean(self.licence.lower(), LICENCES)}"
            )
        others = bool(self.licence_name), bool(self.licence_link)
        if self.licence == OTHER and not all(others):
            raise ValueError(
                f"{where}licence_name and licence_link: expected both with the licence other"
            )
        if self.licence != OTHER and any(others):
            raise ValueError(
                f"{where}licence_name and licence_link: expected with the licence other only, got "
                f"{self.licence or 'none'}"
            )
        if self.licence_name and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.licence_name):
            raise ValueError(
                f"{where}licence_name: expected lower-case letters, digits, '.' and '-', got "
                f"{self.licence_name!r}"
            )
        link = self.licence_link
        if link and not re.fullmatch(r"https?://\S+|LICENSE(\.md)?", link):
            raise ValueError(
                f"{where}licence_link: expected a URL, LICENSE or LICENSE.md, got {link!r}"
            )
