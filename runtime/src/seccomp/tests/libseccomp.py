"""Builds profiles with the installed libseccomp, to compare verdicts with. One JSON object a line in, one a line out.

In:  {"archs": [name, ...], "default": [action, errno], "syscalls": [{"names", "action", "conds": [[arg, op, a, b]]}]}
Out: {"bpf": [[code, jt, jf, k], ...], "last": {arch: number}} or {"error": errno}
The first architecture takes the place of the native one. Or {"table": arch, "first", "count"} -> {"name": number, ...}; {"names": [...]} -> those it knows.
"""
import ctypes
import json
import os
import struct
import sys

lib = ctypes.CDLL("libseccomp.so.2")
libc = ctypes.CDLL(None)
lib.seccomp_init.restype = ctypes.c_void_p
lib.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
ERROR = -1
native = lib.seccomp_arch_native() & 0xFFFFFFFF


class Cond(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def number(name, token=None):
    name = name.encode()
    if token is None:
        return lib.seccomp_syscall_resolve_name(name)
    return lib.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(token), name)


def name(token, nr):
    text = lib.seccomp_syscall_resolve_num_arch(ctypes.c_uint32(token), ctypes.c_int(nr))
    if not text:
        return None
    found = ctypes.string_at(text).decode()
    libc.free(text)
    return found


def build(request):
    tokens = [a["token"] for a in request["archs"]]
    ctx = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(request["default"])))
    if native != tokens[0]:
        lib.seccomp_arch_remove(ctx, ctypes.c_uint32(native))
        # An empty filter takes an architecture of the other byte order.
        lib.seccomp_arch_add(ctx, ctypes.c_uint32(tokens[0]))
    for token in tokens[1:]:
        rc = lib.seccomp_arch_add(ctx, ctypes.c_uint32(token))
        if rc:
            return {"error": rc}
    lib.seccomp_attr_set(ctx, 8, 2)  # SCMP_FLTATR_CTL_OPTIMIZE
    for call in request["syscalls"]:
        for text in call["names"]:
            nr = number(text)
            if nr == ERROR or call["action"] == request["default"]:
                continue
            conds = (Cond * len(call["conds"]))(*[Cond(*c) for c in call["conds"]])
            rc = lib.seccomp_rule_add_array(ctx, ctypes.c_uint32(call["action"]), nr, len(conds), conds)
            if rc:
                return {"error": rc, "call": text}
    fd = os.memfd_create("bpf")
    rc = lib.seccomp_export_bpf(ctx, fd)
    if rc:
        return {"error": rc}
    raw = os.pread(fd, os.fstat(fd).st_size, 0)
    os.close(fd)
    lib.seccomp_release(ctx)
    # Exported in the byte order of the architecture, if it is not the host's.
    order = ">" if request["big_endian"] else "<"
    bpf = list(struct.iter_unpack(order + "HBBI", raw))
    # Away from home libseccomp swaps the bytes of a return that it repeats for the second time.
    known = {0, request["default"]} | {call["action"] for call in request["syscalls"]}
    swap = lambda k: int.from_bytes(k.to_bytes(4, "big"), "little")
    bpf = [(code, jt, jf, swap(k) if code == 6 and k not in known else k) for code, jt, jf, k in bpf]
    last = []
    for token in tokens:
        numbers = [number(n, token) for call in request["syscalls"] for n in call["names"]]
        last.append(max([0] + numbers))
    return {"bpf": bpf, "last": last}


for line in sys.stdin:
    request = json.loads(line)
    if "names" in request:
        # Some of a foreign architecture's names share one pseudo number, and so come back as another's.
        known = [n for n in request["names"] if number(n) != ERROR and name(native, number(n)) == n]
        print(json.dumps(known), flush=True)
    elif "table" in request:
        token, first, count = request["table"], request["first"], request["count"]
        found = {}
        for nr in list(range(first, first + count)) + list(range(0xF0000, 0xF0010)):
            text = name(token, nr)
            if text:
                found[text] = nr
        print(json.dumps(found), flush=True)
    else:
        print(json.dumps(build(request)), flush=True)
