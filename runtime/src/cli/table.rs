//! Every verb and every flag: runc 1.5's, those of runc 1.1 and crun that callers still give, and our own.

use super::grammar::{switch, value, values, Arity, Flag, Verb};

pub const ABOUT: &str = "Open Container Initiative runtime";

/// Flags before the verb. They are taken behind it as well, where the verb has no flag of that name.
pub const GLOBAL: &[Flag] = &[
    switch("debug", "enable debug logging"),
    value("log", "FILE", "append log messages to FILE instead of standard error"),
    value("log-format", "FORMAT", "format of log messages: text (default) or json"),
    value("log-level", "LEVEL", "least level to log: error, warning, info or debug"),
    value("root", "DIR", "directory of the containers' state (default /run/hydra; should be on a tmpfs)"),
    switch("systemd-cgroup", "same as --cgroup-manager systemd; expects a cgroupsPath slice:prefix:name"),
    value("cgroup-manager", "MANAGER", "cgroupfs (default), systemd or disabled"),
    value("rootless", "BOOL", "ignore cgroup permission errors: true, false or auto (default)"),
    value("default-class", "NAME", "class of the container where no annotation names one (create and run)"),
    value("config", "FILE", "classes and defaults (default /etc/hydra/hydra.toml)"),
    value("criu", "PATH", "the criu binary (default: found in $PATH)").hidden(),
    switch("version", "print the version").short('v'),
    switch("V", "print the version").hidden(),
];
/// Those of them that are taken behind the verb too.
pub static INHERITED: &[Flag] = GLOBAL.split_at(GLOBAL.len() - 2).0;

static START: &[Flag] = &[
    value("bundle", "DIR", "root of the bundle (default: the current directory)").short('b'),
    value("config", "FILE", "the bundle's configuration (default: config.json in the bundle)").short('f'),
    value("console-socket", "PATH", "unix socket that receives the master of the container's terminal"),
    value("pidfd-socket", "PATH", "unix socket that receives a pidfd of the container's init"),
    value("pid-file", "FILE", "write the pid of the container's init to FILE"),
    switch("no-pivot", "use chroot instead of pivot_root (for a rootfs on a ramdisk)"),
    switch("no-new-keyring", "let the container inherit the caller's session keyring"),
    value("preserve-fds", "N", "pass N more file descriptors, after stdio and $LISTEN_FDS"),
    switch("no-subreaper", "don't reap processes that lose their parent"),
    value("class", "NAME", "class of the container"),
];

static RUN: &[Flag] = &[
    switch("detach", "return when the container runs").short('d'),
    switch("keep", "don't delete the container when it ends"),
];

static EXEC: &[Flag] = &[
    value("console-socket", "PATH", "unix socket that receives the master of the process's terminal"),
    value("pidfd-socket", "PATH", "unix socket that receives a pidfd of the process"),
    value("cwd", "DIR", "working directory in the container"),
    values("env", "NAME=VALUE", "set an environment variable").short('e'),
    switch("tty", "allocate a terminal").short('t'),
    value("user", "UID[:GID]", "user and group of the process").short('u'),
    values("additional-gids", "GID", "supplementary group").short('g'),
    value("process", "FILE", "the process as an OCI process object; replaces all else").short('p'),
    switch("detach", "return when the process runs").short('d'),
    value("pid-file", "FILE", "write the pid of the process to FILE"),
    value("process-label", "LABEL", "SELinux label of the process"),
    value("apparmor", "PROFILE", "AppArmor profile of the process"),
    switch("no-new-privs", "set no_new_privs for the process"),
    values("cap", "CAP", "add a capability").short('c'),
    value("preserve-fds", "N", "pass N more file descriptors, after stdio and $LISTEN_FDS"),
    values("cgroup", "[CONTROLLER,...:]PATH", "run in an existing sub-cgroup of the container"),
    switch("ignore-paused", "allow to execute in a paused container"),
    switch("no-subreaper", "don't reap processes that lose their parent").hidden(),
];

/// runc's own resource flags of `update`.
pub static RESOURCE: &[Flag] = &[
    value("blkio-weight", "N", "block IO weight, 10 to 1000"),
    value("cpu-period", "USECS", "CPU CFS period; 0 is the system's default"),
    value("cpu-quota", "USECS", "CPU time allowed in a period"),
    value("cpu-burst", "USECS", "CPU time that may be saved up and used in addition"),
    value("cpu-share", "N", "CPU shares, relative to other containers"),
    value("cpu-rt-period", "USECS", "CPU realtime period; 0 is the system's default"),
    value("cpu-rt-runtime", "USECS", "CPU realtime allowed in a period"),
    value("cpu-idle", "0|1", "1: run as SCHED_IDLE"),
    value("cpuset-cpus", "LIST", "CPUs to use"),
    value("cpuset-mems", "LIST", "memory nodes to use"),
    value("kernel-memory", "BYTES", "kernel memory limit (obsolete)").hidden(),
    value("kernel-memory-tcp", "BYTES", "kernel memory limit for TCP buffers (obsolete)").hidden(),
    value("memory", "BYTES", "memory limit; -1 is none"),
    value("memory-reservation", "BYTES", "memory reservation or soft limit"),
    value("memory-swap", "BYTES", "memory and swap together; -1 is none"),
    value("pids-limit", "N", "number of processes; -1 is no limit"),
    value("l3-cache-schema", "SCHEMA", "Intel RDT/CAT schema of the L3 cache"),
    value("mem-bw-schema", "SCHEMA", "Intel RDT/MBA schema of memory bandwidth"),
];

static UPDATE: &[Flag] = &[
    value("resources", "FILE", "read the resources as JSON from FILE, or from standard input if it is -")
        .short('r'),
    value("class", "NAME", "set the container's class; an empty NAME takes it away"),
    values("annotation", "NAME=VALUE", "set a hydra.* annotation"),
    values("unset", "KNOB", "take the operator's KNOB (or class) away again; hydra.KNOB: an annotation"),
    switch("dry-run", "print what would be written, write nothing"),
    switch("json", "print the plan and what was written as JSON"),
    switch("reload", "read the class files again and apply them to the containers that use them"),
    values("select", "class=NAME", "all containers of a class"),
];

static CRIU: &[Flag] = &[
    value(
        "image-path",
        "DIR",
        "directory of criu's image files (default: checkpoint in the current directory)",
    ),
    value("work-path", "DIR", "directory of criu's work files and logs"),
    switch("tcp-established", "allow open tcp connections"),
    switch("ext-unix-sk", "allow external unix sockets"),
    switch("shell-job", "allow shell jobs"),
    switch("lazy-pages", "load memory on demand by userfaultfd"),
    switch("file-locks", "handle file locks"),
    value("manage-cgroups-mode", "MODE", "soft (default), full, strict or ignore"),
    values("empty-ns", "NAMESPACE", "create the namespace, but don't restore its properties (network)"),
    switch("auto-dedup", "deduplicate memory images"),
];

static CHECKPOINT: &[Flag] = &[
    value("parent-path", "DIR", "earlier images of a pre-dump, relative to --image-path"),
    switch("leave-running", "let the container run on"),
    switch("tcp-skip-in-flight", "skip tcp connections that are being made"),
    switch("link-remap", "allow to link unlinked files back"),
    value("status-fd", "FD", "criu writes a zero byte to FD when lazy pages are ready"),
    value("page-server", "ADDRESS:PORT", "send memory pages to a page server"),
    switch("pre-dump", "save the memory alone and let the container run on"),
];

static RESTORE: &[Flag] = &[
    value("bundle", "DIR", "root of the bundle (default: the current directory)").short('b'),
    value("console-socket", "PATH", "unix socket that receives the master of the container's terminal"),
    value("pid-file", "FILE", "write the pid of the container's init to FILE"),
    switch("detach", "return when the container runs").short('d'),
    switch("no-subreaper", "don't reap processes that lose their parent"),
    switch("no-pivot", "use chroot instead of pivot_root (for a rootfs on a ramdisk)"),
    value("lsm-profile", "TYPE:NAME", "LSM profile of the restored processes"),
    value("lsm-mount-context", "CONTEXT", "SELinux context of the restored mounts"),
    switch("tcp-close", "restore tcp connections as closed"),
];

static ATTACH: &[Flag] = &[
    value("detach-keys", "KEYS", "keys that end the session and not the container (default ctrl-p,ctrl-q)"),
    value("exec", "EXEC", "a process that an engine executes in the container, by its ID"),
    switch("no-stdin", "listen only"),
];
static LOGS: &[Flag] = &[switch("follow", "go on until the container ends").short('f')];
static WAIT: &[Flag] =
    &[value("exec", "EXEC", "a process that an engine executes in the container, by its ID")];
static KILL: &[Flag] = &[switch("all", "signal every process of the container").short('a').hidden()];
static DELETE: &[Flag] = &[switch("force", "kill the container first if it runs").short('f')];
static LIST: &[Flag] = &[
    value("format", "FORMAT", "table (default) or json").short('f'),
    switch("quiet", "print the IDs alone").short('q'),
    switch("long", "also class, monitor and root").short('l'),
];
static PS: &[Flag] = &[value("format", "FORMAT", "table (default) or json").short('f')];
static EVENTS: &[Flag] = &[
    value("interval", "DURATION", "time between two statistics (default 5s)"),
    switch("stats", "print the statistics once and exit"),
];
static SPEC: &[Flag] = &[
    value("bundle", "DIR", "root of the bundle (default: the current directory)").short('b'),
    value("file", "FILE", "file to write (default: config.json in the bundle)").short('f'),
    switch("rootless", "for a container without privileges"),
];
static STATS: &[Flag] = &[
    switch("once", "print one table and exit"),
    switch("json", "print JSON, one object for each container and interval"),
    value("format", "FORMAT", "table (default), json or prometheus"),
    value("interval", "DURATION", "time between two tables (default 1s)"),
];
static INSPECT: &[Flag] = &[switch("json", "print JSON")];

const ID: &str = "<container-id>";
const BUNDLE: &str =
    "A bundle is a directory with a file config.json and a root file system. The ID is a name of your \
choice, unique under --root: letters, digits and the signs _ + - and the full stop.";

const fn verb(name: &'static str, about: &'static str, args: &'static str, arity: Arity) -> Verb {
    Verb { name, about, args, long: "", arity, stops: false, knobs: false, flags: &[] }
}

const MONITORED: &str =
    "Answered by the container's monitor (shim), whoever started it, and also while that daemon is down.";

pub static VERBS: &[Verb] = &[
    Verb {
        flags: &[ATTACH],
        long: MONITORED,
        ..verb("attach", "connect to the streams of a container that has a monitor", ID, Arity::Exactly(1))
    },
    Verb {
        flags: &[CRIU, CHECKPOINT],
        long: "Saves the container's processes with criu. Afterwards the container is gone, unless it was left running.",
        ..verb("checkpoint", "checkpoint a running container", ID, Arity::Exactly(1))
    },
    Verb { flags: &[START], knobs: true, long: BUNDLE, ..verb("create", "create a container", ID, Arity::Exactly(1)) },
    Verb {
        flags: &[DELETE],
        long: "A container that was created and never started is killed first. With --force a running one is too, and \
a missing one is no error.",
        ..verb("delete", "delete what a container holds", ID, Arity::Exactly(1))
    },
    Verb {
        flags: &[EVENTS],
        long: "Prints one JSON object a line: statistics at each interval, and every out-of-memory kill when it happens.",
        ..verb("events", "display statistics and out-of-memory events", ID, Arity::Exactly(1))
    },
    Verb {
        flags: &[EXEC],
        stops: true,
        long: "The exit code is that of the command; 128 + N if signal N ended it; 255 if it could not be started.",
        ..verb("exec", "execute a new process inside a container", "<container-id> <command> [args...]", Arity::AtLeast(1))
    },
    verb("features", "show the enabled features", "", Arity::Exactly(0)),
    Verb {
        flags: &[INSPECT],
        long: "For each knob: what was asked, by which layer, and what the kernel says, on which device.",
        ..verb("inspect", "show the knobs of containers", "<container-id>...", Arity::AtLeast(1))
    },
    Verb {
        flags: &[KILL],
        stops: true,
        long: "The signal is a number or a name (KILL, SIGKILL); without one it is SIGTERM.",
        ..verb("kill", "send a signal to a container's init process", "<container-id> [signal]", Arity::Between(1, 2))
    },
    Verb {
        flags: &[LIST],
        long: "Without --root these are the containers of every engine, with name, class, monitor and age; with it, \
               that root's as runc lists them.",
        ..verb("list", "list containers", "", Arity::Exactly(0))
    },
    Verb {
        flags: &[LOGS],
        long: "Prints the last of what the container wrote, as its monitor (shim) keeps it: by default 64 KiB a stream.",
        ..verb("logs", "show the output of a container that has a monitor", ID, Arity::Exactly(1))
    },
    verb("pause", "suspend all processes of a container", ID, Arity::Exactly(1)),
    Verb {
        flags: &[PS],
        stops: true,
        long: "What follows the ID is handed to ps(1); without it that is -ef.",
        ..verb("ps", "display the processes of a container", "<container-id> [ps options]", Arity::AtLeast(1))
    },
    Verb {
        flags: &[CRIU, RESTORE],
        long: "Makes a container again from what checkpoint saved.",
        ..verb("restore", "restore a container from a checkpoint", ID, Arity::Exactly(1))
    },
    verb("resume", "resume all processes of a paused container", ID, Arity::Exactly(1)),
    Verb {
        flags: &[START, RUN],
        knobs: true,
        long: "Creates a container and starts it. Without --detach the exit code is that of the container; 128 + N if \
signal N ended it.",
        ..verb("run", "create and run a container", ID, Arity::Exactly(1))
    },
    Verb {
        flags: &[SPEC],
        long: "Writes a config.json to start from. It never overwrites a file.",
        ..verb("spec", "create a new specification file", "", Arity::Exactly(0))
    },
    verb("start", "start a created container", ID, Arity::Exactly(1)),
    verb("state", "output the state of a container as JSON", ID, Arity::Exactly(1)),
    Verb {
        flags: &[STATS],
        long: "A live table of CPU, memory, block IO by device, and network. Without an ID: all containers under --root.",
        ..verb("stats", "show what containers use of their limits", "[container-id...]", Arity::AtLeast(0))
    },
    Verb {
        flags: &[UPDATE, RESOURCE],
        knobs: true,
        long: "Changes limits of running containers: all of them, or none. With --resources runc's resource flags are \
ignored, as in runc, but for those of Intel RDT. These need resctrl and a container with linux.intelRdt.",
        ..verb("update", "change the limits of containers", "<container-id>...", Arity::AtLeast(0))
    },
    Verb {
        flags: &[WAIT],
        long: MONITORED,
        ..verb("wait", "wait for the end of a container that has a monitor; exit with its code", ID, Arity::Exactly(1))
    },
];

pub fn find(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|v| v.name == name)
}
