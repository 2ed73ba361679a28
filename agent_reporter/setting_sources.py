"""Where settings come from, and that what is found there can be what it is set for.

Apart from the settings themselves, since pydantic, which does this, weighs more than all that uses them.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import MISSING
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, create_model, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from agent_reporter.errors import ConfigurationError

if TYPE_CHECKING:
    import dataclasses
    from collections.abc import Mapping

_file: ContextVar[Path | None] = ContextVar("settings_file", default=None)


def read(
    declared: tuple[tuple[dataclasses.Field[Any], Any], ...],
    file: Path | None,
    overrides: Mapping[str, object],
) -> tuple[dict[str, Any], frozenset[str]]:
    """The value of each setting, and the names of those that are not the default.

    `declared` are fields and their types. The metadata of a field are what pydantic takes of one, and
    `before` and `after`: functions that check or change a value before and after it is made that type, and
    raise ValueError. `overrides` are stronger than the environment, and that is stronger than `file`. Raises
    ConfigurationError, which names all that is wrong.
    """
    model = _model(declared)
    before = _file.set(file)
    try:
        found = model(**overrides)
    except ValidationError as problem:
        raise ConfigurationError(_explain(problem, file)) from None
    except (OSError, ValueError, RecursionError) as problem:
        raise ConfigurationError(f"{file}: cannot be read as TOML: {problem}") from None
    finally:
        _file.reset(before)
    return {each.name: getattr(found, each.name) for each, _ in declared}, frozenset(found.model_fields_set)


@cache
def _model(declared: tuple[tuple[dataclasses.Field[Any], Any], ...]) -> type[_Sources]:
    fields: dict[str, Any] = {each.name: (_checked(each, kind), _declared(each)) for each, kind in declared}
    return create_model("Settings", __base__=_Sources, **fields)


class _Sources(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="AGENT_REPORTER_", extra="forbid", hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where settings come from, the strongest first."""
        file = _file.get()
        if file is None:
            return init_settings, env_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file)

    @field_validator("*")
    @classmethod
    def _is_possible_path(cls, value: object) -> object:
        if isinstance(value, Path) and "\0" in str(value):
            raise ValueError("has to be a path, and there is none with a NUL in it")
        return value


def _checked(each: dataclasses.Field[Any], kind: Any) -> Any:
    checks = {"before": BeforeValidator, "after": AfterValidator}
    for name, validator in checks.items():
        if name in each.metadata:
            kind = Annotated[kind, validator(each.metadata[name])]
    return kind


def _declared(each: dataclasses.Field[Any]) -> Any:
    bounds = {name: value for name, value in each.metadata.items() if name not in {"before", "after"}}
    if each.default_factory is not MISSING:
        return Field(default_factory=each.default_factory, **bounds)
    return Field(default=each.default, **bounds)


def _explain(problem: ValidationError, file: Path | None) -> str:
    lines = []
    for error in problem.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in error["loc"])
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = "is no setting" + (f" (in {file}, or as an argument)" if file else "")
        lines.append(f"{name}: {message}" if name else message)
    return "settings: " + "; ".join(lines)
