"""From a request to a command: its fields become the options that typer understands."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Annotated, Any

import typer

from .requests import AnyPath, is_argument, spelt


def command(
    group: typer.Typer, kind: type[Any], name: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command whose options are the fields of a request, and those of the function itself.

    The function is called with the request and its own options.
    """

    def decorate(run: Callable[..., None]) -> Callable[..., None]:
        own = list(signature(run, eval_str=True).parameters.values())[1:]
        fields = [f for f in dataclasses.fields(kind) if "help" in f.metadata]
        hints = typing.get_type_hints(kind)

        def call(**given: Any) -> None:
            rest = {parameter.name: given.pop(parameter.name) for parameter in own}
            run(kind(**given), **rest)

        parameters = [_parameter(f, hints[f.name]) for f in fields]
        parameters += [p.replace(kind=Parameter.KEYWORD_ONLY) for p in own]
        call.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        call.__doc__, call.__name__ = run.__doc__, run.__name__
        group.command(name=name)(call)
        return run

    return decorate


def _parameter(field: dataclasses.Field[Any], hint: Any) -> Parameter:
    """A field of a request as a parameter that typer understands."""
    about, default = field.metadata["help"], field.metadata["default"]
    if default is dataclasses.MISSING:
        default = Parameter.empty
    if is_argument(field):
        said: Any = typer.Argument(metavar=spelt(field), help=about)
    elif hint is bool:
        said = typer.Option(spelt(field), help=about)
    else:
        is_path = "AnyPath" in str(field.type)
        said = typer.Option(*field.metadata["spellings"], help=about, metavar="<path>" if is_path else None)
    kind = Parameter.KEYWORD_ONLY
    return Parameter(field.name, kind, default=default, annotation=Annotated[_typed(hint), said])


def _typed(hint: Any) -> Any:
    """The type of an option: of what may be a path, or a number or a word, a word.

    Several words are one, which the command itself takes apart; several paths are arguments.
    """
    if hint == AnyPath:
        return str  # a Path of nothing would be the working folder
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        kinds = [kind for kind in arguments if kind is not type(None)]
        if set(typing.get_args(AnyPath)) <= set(kinds):
            one: Any = str
        elif len(kinds) > 1 or typing.get_origin(kinds[0]) is not None:
            one = str
        else:
            one = kinds[0]
        return one | None if len(kinds) < len(arguments) else one
    return list[_typed(arguments[0])] if origin is not None else hint  # type: ignore[misc]
