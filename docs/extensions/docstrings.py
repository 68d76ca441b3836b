"""`name` in a docstring, as in Markdown: a link if it is public, and code elsewhere."""

import re

QUOTED = re.compile(r"(?<![:`])`([^`]+)`(?!`)")


def setup(app):
    """Runs before napoleon, which would split `{path: kernel}` at its colon."""
    app.connect("autodoc-process-docstring", mark_code, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def mark_code(app, what, name, object_, options, lines):
    """Changes the lines of a docstring in place."""
    lines[:] = QUOTED.sub(to_rest, "\n".join(lines)).split("\n")


def to_rest(quoted):
    """What stands between backticks, in reStructuredText."""
    code = quoted[1]
    is_name = re.fullmatch(r"[A-Za-z_][\w.]*", code)
    return f":py:obj:`{code}`" if is_name else f"``{code}``"
