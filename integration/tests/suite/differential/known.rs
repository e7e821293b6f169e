//! What is known to differ from a peer, each with the reason.

use integration::Peer::{self, Crun, Runc};

/// One difference.
pub struct Known {
    pub peer: Peer,
    /// The finding's name; `*` stands for anything.
    pub what: &'static str,
    /// Parts of our value and of the peer's.
    pub values: (&'static str, &'static str),
    pub reason: &'static str,
}

const fn known(
    peer: Peer,
    what: &'static str,
    values: (&'static str, &'static str),
    reason: &'static str,
) -> Known {
    Known { peer, what, values, reason }
}

pub const KNOWN: &[Known] = &[
    // Seals and masks.
    known(
        Runc,
        "mount *",
        ("tmpfs ro,size=4k,nr_inodes=1", "tmpfs ro"),
        "a mask holds nothing, so it needs no room",
    ),
    known(
        Crun,
        "mount *",
        ("tmpfs ro,size=4k,nr_inodes=1", "tmpfs rw,size=0k"),
        "a mask's file system is read-only itself",
    ),
    known(Runc, "mount /proc/*", ("root=/null", "root=/null"), "a mask is the host's null, checked to be it"),
    known(Crun, "mount /proc/*", ("root=/null rw", "root=/null ro"), "writes to a mask vanish, as with runc"),
    known(
        Crun,
        "mount /proc/*",
        ("root=/", "ro,relatime"),
        "a path made read-only keeps the other flags of its mount, as with runc",
    ),
    known(
        Crun,
        "mount /sys*",
        ("sysfs ro", "sysfs rw"),
        "the new sysfs is read-only as a whole, as with runc",
    ),
    // Propagation.
    known(
        Runc,
        "mount *",
        ("[shared]", "[]"),
        "rootfsPropagation shared is in force in the container, as with crun",
    ),
    known(
        Crun,
        "mount /data 1",
        ("[shared]", "[]"),
        "loses the propagation of a mount where the root has none of its own",
    ),
    known(
        Runc,
        "mount /data 1",
        ("[shared]", "[unbindable]"),
        "rootfsPropagation rshared is in force in the container",
    ),
    known(
        Runc,
        "mount /data 1",
        ("[]", "[shared]"),
        "rootfsPropagation rslave reaches the mounts below, as with crun",
    ),
    known(
        Crun,
        "mount /data 1",
        ("[unbindable]", "[]"),
        "loses the propagation of a mount where the root has none of its own",
    ),
    known(
        Crun,
        "accepted",
        ("yes", "no"),
        "writes a quota that is too small for the period that is still there",
    ),
    known(Crun, "node /dev/net/tun", ("opens", "errno 1"), "the default devices are runc's"),
    // The cgroup mount.
    known(
        Runc,
        "mount /sys/fs/cgroup *",
        (" ro,", " rw,"),
        "read-only was asked for, the folder of the hierarchies too",
    ),
    known(
        Crun,
        "mount /sys/fs/cgroup *",
        (" ro,", " rw,"),
        "read-only was asked for, the folder of the hierarchies too",
    ),
    known(Crun, "mount /sys/fs/cgroup *", ("tmpfs tmpfs", "tmpfs cgroup"), "another word for the source"),
    known(
        Runc,
        "mount /sys/fs/cgroup/systemd *",
        ("cgroup cgroup", "cgroup systemd"),
        "another word for the source",
    ),
    known(Crun, "mount /sys/fs/cgroup/*", ("cgroup cgroup", "cgroup /sys"), "another word for the source"),
    known(Crun, "mount /sys/fs/cgroup/*", ("-", ""), "shows hierarchies that the host hasn't mounted"),
    // Where crun runs there is no cgroup v2.
    known(Crun, "cgroup unified/*", ("", "-"), "it runs where the v2 hierarchy is not mounted"),
    known(Crun, "proc cgroup", ("0::/", "0::/"), "it runs where the v2 hierarchy is not mounted"),
    known(
        Crun,
        "cgroup devices/devices.list",
        ("c 10:200 rwm", "c 5:1 rwm"),
        "the default devices are runc's",
    ),
    // User namespaces.
    known(
        Runc,
        "accepted",
        ("yes", "no"),
        "1.1 can't set flags of a bind in a user namespace, later ones can",
    ),
    known(Crun, "mount /data 1", ("", "rw,relatime"), "loses the flags of a bind in a user namespace"),
    known(
        Crun,
        "mount /dev/*",
        ("rw,relatime", "rw,nosuid,noexec,relatime"),
        "seals devices bound in a user namespace further",
    ),
    known(
        Crun,
        "mount /dev/*",
        (" devtmpfs ", "tmpfs none"),
        "makes nodes that can't be opened where the host's can be shown",
    ),
    known(
        Crun,
        "node /dev/*",
        ("owner=65534:65534", "owner=0:0"),
        "makes nodes that can't be opened where the host's can be shown",
    ),
    known(
        Runc,
        "node /dev/mqueue",
        ("owner=65534:65534", "owner=0:"),
        "belongs to whoever made the ipc namespace, before ids were mapped",
    ),
    known(Crun, "session keyring", ("_ses.", ""), "names it otherwise"),
    // Where the bundles lie on a tmpfs that is nosuid and nodev, and the host's mounts are shared.
    known(
        Runc,
        "mount *",
        (",nosuid,nodev", "nr_inodes=1048576"),
        "a bind keeps the flags of its source that nobody asked to lift, as with runc from 1.2 on",
    ),
    known(
        Crun,
        "mount *",
        (",nosuid,nodev", "nr_inodes=1048576"),
        "a bind keeps the flags of its source that nobody asked to lift, as with runc from 1.2 on",
    ),
    known(
        Crun,
        "mount /*",
        ("[master]", "[]"),
        "loses the propagation of a mount where the root has none of its own",
    ),
    // cgroup v2.
    known(
        Crun,
        "mount /sys/fs/cgroup *",
        ("cgroup2 cgroup ", "cgroup2 cgroup2 "),
        "another word for the source",
    ),
    known(Runc, "cgroup */cpu.weight*", ("", ""), "shares become the weight that runc gives from 1.3 on"),
    known(Crun, "cgroup */cpu.weight*", ("", ""), "shares become the weight that runc gives from 1.3 on"),
    // Terminals, streams, signals.
    known(
        Crun,
        "mount /dev/console 1",
        ("nosuid,noexec", "rw,relatime"),
        "the flags are those of the devpts, as with runc",
    ),
    known(Crun, "node /dev/core", ("-", "/proc/kcore"), "makes the link on a host without /proc/kcore, too"),
    known(Runc, "status SigIgn", ("0000000000000000", ""), "passes on signals that its caller ignores"),
    known(Crun, "status SigIgn", ("0000000000000000", ""), "passes on signals that its caller ignores"),
    known(Crun, "environment", ("HOME=/", ""), "leaves HOME away for users that /etc/passwd doesn't know"),
];

/// Where in the list a difference is explained.
pub fn reason(peer: Peer, what: &str, ours: &str, theirs: &str) -> Option<usize> {
    KNOWN.iter().position(|k| {
        k.peer == peer && matches(k.what, what) && ours.contains(k.values.0) && theirs.contains(k.values.1)
    })
}

/// Whether `text` is what `pattern` says, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len()).filter(|i| text.is_char_boundary(*i)).any(|i| matches(rest, &text[i..]))
        }),
    }
}
