"""One setting: its definition, and how a value is read and checked against it."""

import dataclasses
from dataclasses import dataclass
from typing import Any, cast

from convserve_host.arguments import did_you_mean
from convserve_server.settings.kinds import Kind, Value, WrongValue


class SettingError(ValueError):
    """A setting is missing, unknown or out of range; str() is `name: expected X, got Y`."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The definition of one setting.

    Attributes:
        name: Of the key in the file, and with other spelling of the flag and the variable.
        section: Of the table in the file, and of the group in the help.
        attribute: Of the section's class; the key in the section's table.
        type: int, float or str; object for a kind.
        kind: How a value that is neither one number nor one text is read and checked.
        default: The value if none is given.
        help: What it is, in one phrase; units are in the name.
        metavar: What the help shows for the value; empty for one of choices.
        low, high: Range of a number, both included.
        choices: All words that are allowed; empty for any.
        per_model: Whether a table [models.NAME] may hold it.
    """

    name: str
    section: str
    attribute: str
    type: type
    default: Value
    help: str
    kind: Kind | None = None
    metavar: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    per_model: bool = False

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def range(self) -> str:
        """The range of a number, "0 to 4096"; empty for other settings."""
        return "" if self.low is None else f"{self.low:g} to {self.high:.10g}"

    @property
    def words(self) -> tuple[str, ...]:
        """The words that are allowed, or that are beside other values."""
        return self.choices if self.kind is None else self.kind.words

    @property
    def expected(self) -> str:
        """What a value must be, for messages."""
        if self.kind is not None:
            return self.kind.expected
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.type is str:
            return "text"
        return f"{'a whole number' if self.type is int else 'a number'} from {self.range}"

    def parse(self, value: object, origin: str = "") -> Value:
        """Returns a value as the type of this setting.

        Args:
            value: As it was given; a text is read.
            origin: How it was given, for messages.

        Raises:
            SettingError: It is of another type, out of range or not among the choices.
        """
        parsed: Any = value
        if isinstance(value, str):
            try:
                parsed = self.type(value) if self.kind is None else self.kind.read(value)
            except ValueError:
                raise self._error(value, origin) from None
        elif self.type is float and type(value) is int:
            parsed = float(value)
        return self.checked(parsed, origin)

    def checked(self, value: object, origin: str = "") -> Value:
        """Returns a value that is not text to be read, as it is kept: a list as a tuple.

        Raises:
            SettingError: It is of another type, out of range or not among the choices.
        """
        if self.kind is not None:
            try:
                return self.kind.checked(value)
            except WrongValue as error:
                name = ".".join(filter(None, (origin or self.name, error.within)))
                raise SettingError(f"{name}: {error}{self._hint(error.got)}") from None
        right = isinstance(value, self.type) and not isinstance(value, bool)
        # Written so that nan is wrong as well.
        if right and self.low is not None and self.high is not None:
            right = self.low <= value <= self.high  # type: ignore[operator]
        if not right or (self.choices and value not in self.choices):
            raise self._error(value, origin)
        return cast(Value, value)

    def _error(self, value: object, origin: str) -> SettingError:
        name = origin or self.name
        return SettingError(f"{name}: expected {self.expected}, got {value!r}{self._hint(value)}")

    def _hint(self, value: object) -> str:
        return did_you_mean(value, self.words) if isinstance(value, str) else ""


def setting(default: Value, help_: str, *, name: str = "", **definition: Any) -> Any:
    """Returns the dataclass field of a setting; see Setting for the rest of its definition.

    Args:
        default: The value if none is given.
        help_: What it is, in one phrase.
        name: If it is not the name of the field.
        definition: metavar, low, high, choices, kind and per_model.
    """
    metadata = {"setting": {"name": name, "help": help_, **definition}}
    return dataclasses.field(default=default, metadata=metadata)


class Section:
    """The base of a section: a frozen dataclass, each of whose fields is a setting.

    Raises:
        SettingError: When it is made, a value is of another type, out of range or not among the
            choices.
    """

    def __post_init__(self) -> None:
        """Checks every value; a list, as JSON has it, becomes a tuple."""
        for one in settings_of(type(self)):
            given = getattr(self, one.attribute)
            checked = one.checked(given)
            if checked is not given:
                object.__setattr__(self, one.attribute, checked)


def settings_of(section: type[Section]) -> tuple[Setting, ...]:
    """Returns the definitions of a section's settings, in order."""
    found = []
    field: dataclasses.Field[Any]
    for field in dataclasses.fields(section):  # type: ignore[arg-type]  # Each is a dataclass.
        definition = dict(field.metadata["setting"])
        # A kind has its own check, whatever its values are annotated as.
        type_: Any = object if "kind" in definition else field.type
        assert isinstance(type_, type)
        found.append(
            Setting(
                name=definition.pop("name") or field.name,
                section=section.__name__.lower(),
                attribute=field.name,
                type=type_,
                default=cast(Value, field.default),
                **definition,
            )
        )
    return tuple(found)
