"""Warns of each public name that no page documents."""

from importlib import import_module
from inspect import getmodule, isfunction

from sphinx.util import logging

logger = logging.getLogger(__name__)


def setup(app):
    """Registers `documented_modules`, whose public names must be on the API pages."""
    app.add_config_value("documented_modules", [], "env")
    app.connect("env-check-consistency", warn_of_missing_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def warn_of_missing_names(app, env):
    """Looks for every public name among the objects that the pages describe."""
    documented = env.domains["py"].objects
    for module in map(import_module, app.config.documented_modules):
        for name in public_names(module):
            if (path := f"{module.__name__}.{name}") not in documented:
                logger.warning("%s is public and on no page", path)


def public_names(module):
    """`__all__`, or what is defined in the module itself without an underscore."""
    if hasattr(module, "__all__"):
        return module.__all__
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (isfunction(value) or isinstance(value, type))
        and getmodule(value) is module
    ]
