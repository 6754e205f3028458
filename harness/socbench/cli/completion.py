"""socbench completion: print the completion script of a shell"""

from __future__ import annotations

from typing import Annotated

import typer

from socbench.cli.application import examples, single_command
from socbench.errors import UsageError

app, command = single_command(
    epilog=examples(
        'eval "$(socbench completion bash)"  # in ~/.bashrc',
        'eval "$(socbench completion zsh)"  # in ~/.zshrc, after compinit',
        "socbench completion fish > ~/.config/fish/completions/socbench.fish",
    )
)

# All three shells ask in the same way: the line up to the cursor and the number of its word in the environment,
# an answer a line back. Nothing that comes back is evaluated: labels may come from an archive that somebody sent.
# Bash splits words at colons (adb:SERIAL, cpu:xnnpack) as well, so the line is split anew, and what stands before the
# last colon is taken off the answers, as bash has it there already.
_BASH = r"""_socbench_completion() {
    local line="${COMP_LINE:0:COMP_POINT}" word prefix="" answer
    word="${line##*[[:space:]]}"
    [[ "$word" == *:* && "$COMP_WORDBREAKS" == *:* ]] && prefix="${word%"${word##*:}"}"
    local -a words
    read -r -a words <<< "$line"
    local position=${#words[@]}
    [[ -n "$word" ]] && position=$((position - 1))
    COMPREPLY=()
    while IFS= read -r answer; do
        [[ -n "$answer" ]] && COMPREPLY+=("${answer#"$prefix"}")
    done < <(COMP_WORDS="$line" COMP_CWORD="$position" _SOCBENCH_COMPLETE=complete_bash "$1" 2>/dev/null)
}
complete -o default -F _socbench_completion socbench"""
_ZSH = r"""#compdef socbench
_socbench_completion() {
    local -a answers
    answers=(${(f)"$(COMP_WORDS="${(j: :)words[1,$CURRENT]}" COMP_CWORD=$((CURRENT - 1)) \
        _SOCBENCH_COMPLETE=complete_bash $words[1] 2>/dev/null)"})
    if (( ${#answers} )); then compadd -a answers; else _files; fi
}
compdef _socbench_completion socbench"""
_FISH = r"""function __socbench_completion
    set -lx COMP_WORDS (commandline --current-process --cut-at-cursor)
    set -lx COMP_CWORD (count (commandline --current-process --cut-at-cursor --tokenize))
    set -lx _SOCBENCH_COMPLETE complete_bash
    socbench 2>/dev/null
end
complete --command socbench --arguments '(__socbench_completion)'"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@command
def completion(
    shell: Annotated[
        str, typer.Argument(metavar="bash|zsh|fish", help="The shell.", autocompletion=lambda: list(_SCRIPTS))
    ],
) -> None:
    """Print the completion script of a shell; sessions, models, devices and options are completed."""
    if shell not in _SCRIPTS:
        raise UsageError(f"there is no completion for {shell!r}: bash, zsh or fish")
    print(_SCRIPTS[shell])
