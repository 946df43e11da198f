"""All kinds of settings that there are."""


def all_of(model):
    """Every class that is made of a class of settings, at any depth."""
    for kind in model.__subclasses__():
        yield kind
        yield from all_of(kind)
