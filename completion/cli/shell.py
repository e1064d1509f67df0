"""``--shell-completion``: a script for the tab completion of commands, options, families and files.

The script is made from the parsers of the commands. It is static: pressing the tab key starts no Python. shtab and
argcomplete cannot make it, because they need subcommands that argparse knows, and our default command takes any words.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from completion import registry
from completion.cli.main import MAX_WORDS

FILES = "files"
TEXT = "text"

# The options whose values are files. Other values are TEXT.
_FILES = ("--attach", "--session", "--schema", "--trace", "--out")

# The commands whose words are files. The words of the others are a prompt.
_FILE_COMMANDS = ("batch", "trace")


@dataclass(frozen=True, slots=True)
class Option:
    """An option. ``values``: FILES, TEXT, or the words to choose from; None if the option takes no value."""

    names: tuple[str, ...]
    help: str
    values: str | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Command:
    """A command. ``words``: FILES or the words to choose from; None if they are a prompt."""

    name: str
    help: str
    options: tuple[Option, ...]
    words: str | tuple[str, ...] | None


def script(shell: str) -> str:
    """The script for ``bash``, ``zsh`` or ``fish``."""
    commands = [*_commands()]
    return "\n".join({"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands)) + "\n"


def _commands() -> Iterator[Command]:
    for name in MAX_WORDS:
        # A command whose module has no new_parser() is offered without its options.
        new_parser = getattr(import_module(f"completion.cli.{name}"), "new_parser", argparse.ArgumentParser)
        parser: argparse.ArgumentParser = new_parser()
        words: str | tuple[str, ...] | None = None
        if name == "models":
            words = tuple(registry.families())
        elif name in _FILE_COMMANDS:
            words = FILES
        yield Command(name, _first_sentence(parser.description or ""), tuple(_options(parser)), words)


def _options(parser: argparse.ArgumentParser) -> Iterator[Option]:
    for action in parser._actions:
        if action.option_strings:
            yield Option(tuple(action.option_strings), _first_sentence(action.help or ""), _values(action))


def _values(action: argparse.Action) -> str | tuple[str, ...] | None:
    if action.nargs == 0:
        return None
    if action.choices is not None:
        return tuple(map(str, action.choices))
    if "--model" in action.option_strings:
        return tuple(f"{family}:" for family in registry.families())
    return FILES if any(name in _FILES for name in action.option_strings) else TEXT


def _first_sentence(text: str) -> str:
    """The first sentence, without characters that have a meaning in a shell."""
    sentence = re.split(r"[.;:(\n]", text.strip())[0].strip()
    return re.sub(r"[^\w ,/-]", "", sentence)


def _all_options(commands: list[Command]) -> Iterator[Option]:
    seen = set()
    for command in commands:
        for option in command.options:
            if option.names not in seen:
                seen.add(option.names)
                yield option


# --- bash --------------------------------------------------------------------------------------------------------


def _bash(commands: list[Command]) -> Iterator[str]:
    names = " ".join(command.name for command in commands)
    yield '# In ~/.bashrc:  eval "$(completion --shell-completion bash)"'
    yield "_completion_command() {"
    yield "    local IFS=$'\\n' cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= word words="
    # bash splits openai:gpt at the colon, so the previous word is then the colon.
    yield "    [[ $prev == : || $cur == : ]] && return"
    yield '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do'
    yield f"        case $word in {names.replace(' ', '|')}) command=$word; break;; -*) ;; *) command=ask; break;; esac"
    yield "    done"
    yield "    case $prev in"
    for option in _all_options(commands):
        if option.values is not None:
            yield f"        {'|'.join(option.names)}) {_bash_values(option.values)}; return;;"
    yield "    esac"
    yield "    case $command in"
    for command in commands:
        words = " ".join(name for option in command.options for name in option.names)
        pattern = "ask|''" if command.name == "ask" else command.name
        yield f'        {pattern}) words="{words}";;'
    yield "    esac"
    for command in commands:
        if command.words is not None:
            yield f"    if [[ $command == {command.name} && $cur != -* ]]; then"
            yield f"        {_bash_values(command.words)}; return"
            yield "    fi"
    yield f'    [[ -z $command ]] && words="{names} $words"'
    yield '    COMPREPLY=($(compgen -W "${words// /$IFS}" -- "$cur"))'
    yield "}"
    yield "complete -F _completion_command completion"


def _bash_values(values: str | tuple[str, ...]) -> str:
    if values == FILES:
        return 'compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur"))'
    if values == TEXT:
        return "COMPREPLY=()"
    nospace = "compopt -o nospace 2>/dev/null; " if values[0].endswith(":") else ""
    # IFS is a line end.
    words = "\\n".join(values)
    return f"{nospace}COMPREPLY=($(compgen -W $'{words}' -- \"$cur\"))"


# --- zsh ---------------------------------------------------------------------------------------------------------


def _zsh(commands: list[Command]) -> Iterator[str]:
    yield "#compdef completion"
    yield '# In ~/.zshrc, after compinit:  eval "$(completion --shell-completion zsh)"'
    yield "_completion_families() {"
    yield f"    compadd -S '' -- {' '.join(f'{family}:' for family in registry.families())}"
    yield "}"
    yield "_completion_command() {"
    yield "    local command= word state"
    yield "    local -a commands"
    rows = " ".join(f"'{command.name}:{command.help}'" for command in commands)
    yield f"    commands=({rows})"
    names = "|".join(command.name for command in commands)
    yield '    for word in "${(@)words[2,CURRENT-1]}"; do'
    yield f"        case $word in {names}) command=$word; break;; -*) ;; *) command=ask; break;; esac"
    yield "    done"
    yield "    case $command in"
    for command in commands:
        pattern = "ask|''" if command.name == "ask" else command.name
        yield f"        {pattern}) _arguments -s \\"
        for option in command.options:
            yield f"            {_zsh_option(option)} \\"
        # The name of the command is the first word.
        more = "'*: :->words'" if command.name == "ask" else "'1: :'"
        if command.words is not None:
            more += f" '2:word:{_zsh_values(command.words)}'"
        yield f"            {more} ;;"
    yield "    esac"
    yield "    [[ $state == words && -z $command ]] && _describe command commands"
    yield "}"
    yield "compdef _completion_command completion"


def _zsh_option(option: Option) -> str:
    names = " ".join(option.names)
    shown = f"{{{','.join(option.names)}}}" if len(option.names) > 1 else option.names[0]
    value = "" if option.values is None else f":value:{_zsh_values(option.values)}"
    repeats = "*" if "--attach" in option.names or "--tools" in option.names else f"({names})"
    return f"'{repeats}'{shown}'[{option.help}]{value}'"


def _zsh_values(values: str | tuple[str, ...]) -> str:
    if values == FILES:
        return "_files"
    if values == TEXT:
        return ""
    # _arguments would add a space after the colon of a family.
    return "_completion_families" if values[0].endswith(":") else f"({' '.join(values)})"


# --- fish --------------------------------------------------------------------------------------------------------


def _fish(commands: list[Command]) -> Iterator[str]:
    names = " ".join(command.name for command in commands)
    yield "# In ~/.config/fish/config.fish:  completion --shell-completion fish | source"
    yield "complete -c completion -f"
    first = f"complete -c completion -n 'not __fish_seen_subcommand_from {names}'"
    for command in commands:
        yield f"{first} -a {command.name} -d '{command.help}'"
    others = " ".join(command.name for command in commands if command.name != "ask")
    for command in commands:
        # Without a command it is ask.
        seen = f"not __fish_seen_subcommand_from {others}"
        if command.name != "ask":
            seen = f"__fish_seen_subcommand_from {command.name}"
        for option in command.options:
            flags = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            yield f"complete -c completion -n '{seen}' {flags}{_fish_values(option.values)} -d '{option.help}'"
        if command.words is not None:
            words = " -F" if command.words == FILES else f" -a '{' '.join(command.words)}'"
            yield f"complete -c completion -n '{seen}'{words}"


def _fish_values(values: str | tuple[str, ...] | None) -> str:
    if values is None:
        return ""
    if values == FILES:
        return " -r -F"
    return " -x" if values == TEXT else f" -x -a '{' '.join(values)}'"
