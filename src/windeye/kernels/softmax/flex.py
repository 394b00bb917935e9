name = "cpu"


def can_run(p):
    return "x"
