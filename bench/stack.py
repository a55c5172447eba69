"""How deep the firmware's stack can become, from its machine code: ``python -m bench.stack firmware.elf``.

Every function's frame and its calls are read from the disassembly; the deepest chain from main, and that of the
interrupt on top of it, are what the stack must hold. A call through a pointer, a frame of variable size and recursion
would escape this, so each is an error.
"""
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

TRAP_BYTES = 64    # that crt0's trap_entry saves
FUNCTION   = re.compile(r"^([0-9a-f]+) <(\S+)>:$")
CALL       = re.compile(r"^jal (?:ra|zero),[0-9a-f]+ <([^>+]+)>$")
RETURN     = "jalr zero,0(ra)"
FRAME      = re.compile(r"^addi sp,sp,-(\d+)\b")
SWITCHES   = ("main",)    # functions with a table of jumps, all of them to places in themselves
POINTERS   = {"sdram_leveling_action": {f"{kind}_dq_{what}" for kind in ("read_rst", "read_inc")
                                        for what in ("delay", "bitslip")}}    # liblitedram's: who is called there


class StackError(Exception):
    """Something whose depth cannot be read from the code."""


@dataclass
class Function:
    frame: int = 0                                  #: bytes
    calls: set[str] = field(default_factory=set)


def functions(disassembly):
    """By name, from what objdump says. A jump to another function's beginning counts as a call."""
    found, name = {}, None
    for line in disassembly.splitlines():
        if head := FUNCTION.match(line):
            name = head[2]
            found[name] = Function()
        elif name is not None and line.startswith(" "):
            read_instruction(found[name], name, line.split("\t", 2)[-1].replace("\t", " ").strip())
    return found


def read_instruction(function, name, text):
    if frame := FRAME.search(text):
        function.frame += int(frame[1])
    elif call := CALL.search(text):
        if call[1] != name:
            function.calls.add(call[1])
    elif text.startswith("jalr ra,") and name in POINTERS:
        function.calls |= POINTERS[name]
    elif text.startswith("jalr zero,") and name in SWITCHES:
        pass
    elif text.startswith("jalr ") and not text.startswith(RETURN):
        raise StackError(f"{name} calls through a pointer ({text}): its depth cannot be read from the code")
    elif re.match(r"(add|sub) sp,", text):
        raise StackError(f"{name} has a frame of variable size ({text})")


def deepest(found, name, above=()):
    """The deepest chain of calls from a function: its bytes and the functions in it."""
    if name in above:
        raise StackError(f"recursion: {' -> '.join([*above, name])}")
    chains = [deepest(found, call, (*above, name)) for call in sorted(found[name].calls) if call in found]
    bytes_, chain = max(chains, default=(0, []))
    return bytes_ + found[name].frame, [name, *chain]


def measure(elf):
    """Bytes of main's deepest chain, of the interrupt's on top, and what SRAM leaves for them."""
    tools = ["riscv64-unknown-elf-objdump", "-d", "-M", "no-aliases", str(elf)], ["riscv64-unknown-elf-nm", str(elf)]
    code, names = (subprocess.run(tool, capture_output=True, text=True, check=True).stdout for tool in tools)
    symbols = {line.split()[-1]: int(line.split()[0], 16) for line in names.splitlines() if len(line.split()) == 3}
    found = functions(code)
    main, main_chain = deepest(found, "main")
    interrupt, interrupt_chain = deepest(found, "isr")
    return {"main_bytes": main, "main_chain": main_chain, "interrupt_bytes": interrupt + TRAP_BYTES,
            "interrupt_chain": interrupt_chain, "used_bytes": main + interrupt + TRAP_BYTES,
            "room_bytes": symbols["_fstack"] - symbols["_end"]}


def main():
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        print("usage: python -m bench.stack FIRMWARE.ELF, which a build of a target leaves in software/firmware",
              file=sys.stderr)
        return 2
    try:
        found = measure(sys.argv[1])
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    for name in ("main", "interrupt"):
        print(f"{name}: {found[f'{name}_bytes']} bytes: {' -> '.join(found[f'{name}_chain'])}")
    print(f"{found['used_bytes']} of {found['room_bytes']} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
