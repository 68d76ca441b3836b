"""The documentation site: `make docs` builds it, and every warning is an error."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "extensions"), str(DOCS.parent)]

# Of the notebooks, which compile more than they compute.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["PYTHONPATH"] = str(DOCS.parent)

import convsim_jax

project = "convsim_jax"
version = release = convsim_jax.__version__
author = "the authors of convsim_jax"
copyright = f"{author}. License: Apache-2.0"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "myst_nb",
    "coverage",
    "docstrings",
    "mathml",
]
exclude_patterns = ["_build"]

# Docstrings.
add_module_names = False
smartquotes = False  # quotes are code here
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # a docstring says what each argument is
napoleon_attr_annotations = False
napoleon_use_ivar = True
documented_modules = ["convsim_jax", "convsim_jax.orthogonality", "convsim_jax.flax"]

# Pages and notebooks.
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

html_theme = "sphinx_book_theme"
html_title = "convsim_jax"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],  # the search stands in the sidebar already
}
