"""Formulas as MathML: browsers show it without a script, and so without a network."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)


def setup(app):
    """Registers `html_math_renderer = "mathml"`."""
    app.add_html_math_renderer("mathml", (write_inline, None), (write_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_inline(writer, node):
    """Writes `$...$`."""
    writer.body.append(to_mathml(node, as_block=False))
    raise nodes.SkipNode


def write_block(writer, node):
    """Writes `$$...$$` and `.. math::`, which scrolls where it is wider than the page."""
    writer.body.append(f'<div class="formula">{to_mathml(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def to_mathml(node, as_block):
    """The formula of a node, or a warning where it is no TeX."""
    if re.search(r"frac\d", node.astext()):  # whose numerator it would take to be longer
        logger.warning("formula %r: braces are missing", node.astext(), location=node)
    try:
        return str(tex2mathml(node.astext(), as_block=as_block))
    except MathError as error:
        logger.warning("formula %r: %s", node.astext(), error, location=node)
        return ""
