"""What the annotations are checked by while tests run: beartype, an int being a float as type checkers have it."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
