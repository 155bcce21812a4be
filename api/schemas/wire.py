"""What all request bodies share: strict types, unknown keys ignored, and one error that names every wrong field."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from api.errors import Fault

Given = Mapping[str, object]
"""A body as it came, not validated: rules over several fields must hold for whatever types they have."""
Problem = tuple[str, str]
"""A field and what is wrong with it."""

LARGEST_UID: Final = 2**32 - 1

_CHANNEL_CHARACTERS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 !#$%&()+-:;<=.>?@[]^_{}|~,",
)
_ILLEGAL_CHANNEL: Final = "illegal_channel_name"
_SPELLED_OUT: Final = "spelled_out"


class Wire(BaseModel):
    """A JSON object of the public API."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", alias_generator=to_camel, hide_input_in_errors=True)

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        """Rules that concern more than one field; asked even when single fields are wrong, so that all is told at once."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _everything_wrong(cls, data: Any, handler: ModelWrapValidatorHandler["Wire"]) -> "Wire":
        problems: list[InitErrorDetails] = []
        value: Wire | None = None
        try:
            value = handler(data)
        except ValidationError as error:
            problems = [_again(detail) for detail in error.errors(include_url=False, include_context=False, include_input=False)]
        if isinstance(data, dict):
            named = {problem["loc"][0] for problem in problems}
            for field, message in cls.rules(data):
                if field not in named:
                    named.add(field)
                    problems.append({"type": wrong(message), "loc": (field,), "input": None})
        if problems or value is None:
            raise ValidationError.from_exception_data(cls.__name__, problems, hide_input=True)
        return value


def wrong(message: str, kind: str = "rule") -> PydanticCustomError:
    """An error of a validator. The message must not quote the input: it may be a secret."""
    return PydanticCustomError(kind, "{message}", {"message": message})


def spelled_out(message: str) -> PydanticCustomError:
    """An error whose documented text names the field already."""
    return wrong(message, _SPELLED_OUT)


def explain(errors: Iterable[ErrorDetails]) -> tuple[Fault, str | None]:
    """The answer to a body that is not as it should be."""
    details = list(errors)
    if all(detail["type"] == _ILLEGAL_CHANNEL for detail in details):
        return Fault.INVALID_CHANNEL_NAME, None
    return Fault.INVALID_PARAMETER, "; ".join(dict.fromkeys(_sentence(detail) for detail in details))


def unsigned(most: int, *, least: int = 0) -> Any:
    """Bounds of a JSON number; `strict` already keeps booleans and strings out."""
    return Field(ge=least, le=most)


def _uid(text: str) -> str:
    if not (text.isascii() and text.isdigit() and not text.startswith("0") and len(text) <= 10 and int(text) <= LARGEST_UID):
        raise wrong(f"must be an integer in quotes, from 1 to {LARGEST_UID}")
    return text


def _uid_or_empty(text: str) -> str:
    return _uid(text) if text else text


def _channel_name(text: str) -> str:
    if not text or len(text.encode(errors="replace")) >= 64:
        raise wrong("must have 1 to 63 bytes")
    if not _CHANNEL_CHARACTERS.issuperset(text):
        raise wrong("has characters that channel names cannot have", _ILLEGAL_CHANNEL)
    return text


def printable(text: str) -> str:
    if not text.isprintable():
        raise wrong("must not have control characters")
    return text


def _image_url(text: str) -> str:
    if text and not is_http_url(text):
        raise wrong("must be a http or https URL")
    if "@" in urlsplit(text).netloc:
        raise wrong("must not have a login")
    return text


def is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises when it is no number
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable() and " " not in text


_CHANNEL_PATTERN: Final = r"^[A-Za-z0-9 !#$%&()+\-:;<=.>?@\[\]^_{}|~,]{1,63}$"  # for the served description
_UID_PATTERN: Final = r"[1-9][0-9]{0,9}"
Uid = Annotated[str, AfterValidator(_uid), Field(json_schema_extra={"pattern": f"^{_UID_PATTERN}$"})]
UidOrEmpty = Annotated[str, AfterValidator(_uid_or_empty), Field(json_schema_extra={"pattern": f"^({_UID_PATTERN})?$"})]
ChannelName = Annotated[str, AfterValidator(_channel_name), Field(json_schema_extra={"pattern": _CHANNEL_PATTERN})]
Printable = Annotated[str, AfterValidator(printable), Field(max_length=4096)]
ImageUrl = Annotated[
    str,
    AfterValidator(_image_url),
    Field(
        max_length=2048,
        description="http or https; JPG, BMP or PNG, at most 6 MB and 4096 x 4096",
        json_schema_extra={"pattern": "^([Hh][Tt][Tt][Pp][Ss]?://.+)?$"},
    ),
]


def _again(detail: ErrorDetails) -> InitErrorDetails:
    return {"type": wrong(detail["msg"], detail["type"]), "loc": detail["loc"], "input": None}


def _sentence(detail: ErrorDetails) -> str:
    if detail["type"] == _SPELLED_OUT:
        return detail["msg"]
    path = ""
    for step in detail["loc"][1:]:  # the first says body, path or query
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return f"{path.lstrip('.') or 'body'}: {detail['msg']}"
