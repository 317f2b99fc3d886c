"""Out of memory, whoever says so: Python, NumPy, Arrow, torch's allocators or the system; and what helps."""

import errno
import re

from gptcls.core.errors import InputError

# torch raises plain RuntimeErrors but for NVIDIA's GPUs; the loader of libraries says it as an ImportError.
SAID = re.compile(
    "DefaultCPUAllocator|can(no|')t allocate memory|not enough memory|out of memory|bad_alloc"
    "|ALLOC_FAILED|failed to map segment|can't start new thread",
    re.IGNORECASE,
)
SMALLER = ("batch_size", "max_length", "window", "max_new_tokens", "cache_budget")  # where a verb has them


def ran_out(error: BaseException) -> bool:
    """Whether there was too little memory, on the CPU or on a GPU.

    >>> ran_out(MemoryError()), ran_out(RuntimeError("shapes differ"))
    (True, False)
    """
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError | ImportError) and bool(SAID.search(str(error)))


def explained(error: BaseException, config_class: type) -> InputError:
    """One line that says what was asked for, where that is known, and which of a verb's options help."""
    from gptcls.common.help import options_of

    flags = {flag for option in options_of(config_class) for flag in option.flags}
    smaller = [flag for name in SMALLER if (flag := "--" + name.replace("_", "-")) in flags]
    ways = [f"lower {' or '.join(smaller)}"] if smaller else []
    ways += ["take a smaller --model"] if "--model" in flags else []
    ways.append("or close other programs" if ways else "close other programs")
    said = re.split(r"[.!]? (Error code|GPU \d+ has|If reserved)|\n", str(error).strip())[0]
    said = said.rpartition("DefaultCPUAllocator: ")[2] or type(error).__name__
    error.__traceback__ = error.__context__ = None  # whose frames hold the memory
    return InputError(f"out of memory ({said:.200}): {', '.join(ways)}")
