"""Promise of the requirements: they pin what is shipped."""

from __future__ import annotations

from tools.write_requirements import pins

INSTALLED = {
    "app": ("1.0", ["Lib_A>=1", "lib-b; extra == 'b'", "tool; extra == 'dev'", "gone; sys_platform == 'nowhere'"]),
    "lib-a": ("1.2", ["lib-c[fast]", "app"]),
    "lib-b": ("2.0", []),
    "lib-c": ("3.0", ["speedup; extra == 'fast'", "absent"]),
    "speedup": ("0.1", []),
    "tool": ("9.9", []),
}


def test_what_is_needed_at_run_time():
    """Requirements of requirements with their extras are pinned; other extras, other platforms and itself are not."""
    assert pins(["app"], INSTALLED.get) == ["lib-a==1.2", "lib-c==3.0", "speedup==0.1"]
    assert pins(["app[b]"], INSTALLED.get) == ["lib-a==1.2", "lib-b==2.0", "lib-c==3.0", "speedup==0.1"]
