//! Mount options by name (config.md, "Linux mount options").

use crate::error::Result;
use crate::invalid;

/// What the options of one mount come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `MS_*` to set, and to clear on a bind mount, whose source has flags of its own.
    pub set: u64,
    pub clear: u64,
    /// `MOUNT_ATTR_*`, for the whole tree.
    pub recursive_set: u64,
    pub recursive_clear: u64,
    /// Propagation to give the mount, in order.
    pub propagation: Vec<u64>,
    pub tmpcopyup: bool,
    pub idmap: Option<Idmap>,
    /// Everything unknown, for the file system itself.
    pub data: String,
}

/// How far an id-mapped mount reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idmap {
    One,
    Tree,
}

/// Options of the mount itself, not of the file system.
pub const PER_MOUNT: u64 = libc::MS_RDONLY
    | libc::MS_NOSUID
    | libc::MS_NODEV
    | libc::MS_NOEXEC
    | libc::MS_NOATIME
    | libc::MS_NODIRATIME
    | libc::MS_RELATIME
    | libc::MS_STRICTATIME
    | NOSYMFOLLOW;

/// Linux 5.10.
pub const NOSYMFOLLOW: u64 = 0x100;

const ATIMES: u64 = libc::MS_NOATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;

/// Name, flag, and whether the name clears it.
const FLAGS: &[(&str, u64, bool)] = &[
    ("async", libc::MS_SYNCHRONOUS, true),
    ("atime", libc::MS_NOATIME, true),
    ("bind", libc::MS_BIND, false),
    ("defaults", 0, false),
    ("dev", libc::MS_NODEV, true),
    ("diratime", libc::MS_NODIRATIME, true),
    ("dirsync", libc::MS_DIRSYNC, false),
    ("exec", libc::MS_NOEXEC, true),
    ("iversion", libc::MS_I_VERSION, false),
    ("lazytime", libc::MS_LAZYTIME, false),
    ("loud", libc::MS_SILENT, true),
    ("mand", libc::MS_MANDLOCK, false),
    ("noatime", libc::MS_NOATIME, false),
    ("nodev", libc::MS_NODEV, false),
    ("nodiratime", libc::MS_NODIRATIME, false),
    ("noexec", libc::MS_NOEXEC, false),
    ("noiversion", libc::MS_I_VERSION, true),
    ("nolazytime", libc::MS_LAZYTIME, true),
    ("nomand", libc::MS_MANDLOCK, true),
    ("norelatime", libc::MS_RELATIME, true),
    ("nostrictatime", libc::MS_STRICTATIME, true),
    ("nosuid", libc::MS_NOSUID, false),
    ("nosymfollow", NOSYMFOLLOW, false),
    ("rbind", libc::MS_BIND | libc::MS_REC, false),
    ("relatime", libc::MS_RELATIME, false),
    ("remount", libc::MS_REMOUNT, false),
    ("ro", libc::MS_RDONLY, false),
    ("rw", libc::MS_RDONLY, true),
    ("silent", libc::MS_SILENT, false),
    ("strictatime", libc::MS_STRICTATIME, false),
    ("suid", libc::MS_NOSUID, true),
    ("symfollow", NOSYMFOLLOW, true),
    ("sync", libc::MS_SYNCHRONOUS, false),
];

const PROPAGATIONS: &[(&str, u64)] = &[
    ("private", libc::MS_PRIVATE),
    ("rprivate", libc::MS_PRIVATE | libc::MS_REC),
    ("rshared", libc::MS_SHARED | libc::MS_REC),
    ("rslave", libc::MS_SLAVE | libc::MS_REC),
    ("runbindable", libc::MS_UNBINDABLE | libc::MS_REC),
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Those of mount_setattr(2). An atime mode is set by clearing the whole field, or the kernel refuses, and setting one
/// value, 0 being relatime.
const RECURSIVE: &[(&str, u64, u64)] = &[
    ("ratime", 0, libc::MOUNT_ATTR__ATIME),
    ("rdev", 0, libc::MOUNT_ATTR_NODEV),
    ("rdiratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    ("rexec", 0, libc::MOUNT_ATTR_NOEXEC),
    ("rnoatime", libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME),
    ("rnodev", libc::MOUNT_ATTR_NODEV, 0),
    ("rnodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("rnoexec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("rnorelatime", 0, libc::MOUNT_ATTR__ATIME),
    ("rnostrictatime", 0, libc::MOUNT_ATTR__ATIME),
    ("rnosuid", libc::MOUNT_ATTR_NOSUID, 0),
    ("rnosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    ("rrelatime", 0, libc::MOUNT_ATTR__ATIME),
    ("rro", libc::MOUNT_ATTR_RDONLY, 0),
    ("rrw", 0, libc::MOUNT_ATTR_RDONLY),
    ("rstrictatime", libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME),
    ("rsuid", 0, libc::MOUNT_ATTR_NOSUID),
    ("rsymfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// Every name that is understood.
#[cfg(test)]
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = FLAGS.iter().map(|f| f.0).collect();
    names.extend(PROPAGATIONS.iter().map(|p| p.0));
    names.extend(RECURSIVE.iter().map(|r| r.0));
    names.extend(["idmap", "ridmap", "tmpcopyup"]);
    names.sort_unstable();
    names
}

/// Reads the options in order; a later one overrides an earlier one.
pub fn parse(options: &[String]) -> Result<Options> {
    let mut all = Options::default();
    let mut data = Vec::new();
    for option in options {
        let name = option.as_str();
        if name.contains('\0') {
            invalid!("mount option {name:?} holds a NUL byte");
        }
        if let Some(&(_, flag, clears)) = FLAGS.iter().find(|f| f.0 == name) {
            all.apply(flag, clears);
        } else if let Some(&(_, flag)) = PROPAGATIONS.iter().find(|p| p.0 == name) {
            all.propagation.push(flag);
        } else if let Some(&(_, set, clear)) = RECURSIVE.iter().find(|r| r.0 == name) {
            all.recursive_set = (all.recursive_set & !clear) | set;
            all.recursive_clear = (all.recursive_clear & !set) | clear;
        } else {
            match name {
                "tmpcopyup" => all.tmpcopyup = true,
                "idmap" => all.idmap = Some(Idmap::One),
                "ridmap" => all.idmap = Some(Idmap::Tree),
                "" => {}
                other => data.push(other),
            }
        }
    }
    all.data = data.join(",");
    Ok(all)
}

impl Options {
    fn apply(&mut self, flag: u64, clears: bool) {
        if clears {
            self.set &= !flag;
            self.clear |= flag;
            return;
        }
        if flag & ATIMES != 0 {
            self.set &= !ATIMES;
        }
        self.set |= flag;
        self.clear &= !flag;
    }

    pub fn is_bind(&self) -> bool {
        self.set & libc::MS_BIND != 0
    }

    pub fn is_readonly(&self) -> bool {
        self.set & libc::MS_RDONLY != 0
    }

    /// The flags of one bind mount, as mount_setattr(2) takes them: to set, to clear.
    pub fn attributes(&self) -> (u64, u64) {
        let atime = self.set & ATIMES != 0;
        let set = attribute_bits(self.set);
        let clear = attribute_bits(self.clear & !ATIMES) | if atime { libc::MOUNT_ATTR__ATIME } else { 0 };
        let clear = if self.clear & libc::MS_NOATIME != 0 { clear | libc::MOUNT_ATTR__ATIME } else { clear };
        (set, clear & !(set & !libc::MOUNT_ATTR__ATIME))
    }
}

/// `MS_*` of a mount as `MOUNT_ATTR_*`.
pub fn attribute_bits(flags: u64) -> u64 {
    const PAIRS: [(u64, u64); 7] = [
        (libc::MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
        (libc::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
        (libc::MS_NODEV, libc::MOUNT_ATTR_NODEV),
        (libc::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
        (libc::MS_NOATIME, libc::MOUNT_ATTR_NOATIME),
        (libc::MS_STRICTATIME, libc::MOUNT_ATTR_STRICTATIME),
        (libc::MS_NODIRATIME, libc::MOUNT_ATTR_NODIRATIME),
    ];
    let mut bits: u64 = PAIRS.iter().filter(|(ms, _)| flags & ms != 0).map(|(_, attr)| attr).sum();
    if flags & NOSYMFOLLOW != 0 {
        bits |= libc::MOUNT_ATTR_NOSYMFOLLOW;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Options {
        parse(&options.iter().map(|o| o.to_string()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn later_overrides_earlier() {
        assert_eq!(of(&["ro", "rw"]).set, 0);
        assert!(of(&["rw", "ro"]).is_readonly());
        assert_eq!(of(&["noatime", "strictatime"]).set, libc::MS_STRICTATIME);
        assert_eq!(of(&["rro", "rrw"]).recursive_set, 0);
    }

    #[test]
    fn unknown_ones_are_data() {
        let options = of(&["nosuid", "mode=755", "size=65536k", "tmpcopyup", "rslave"]);
        assert_eq!(options.data, "mode=755,size=65536k");
        assert_eq!(options.propagation, [libc::MS_SLAVE | libc::MS_REC]);
        assert!(options.tmpcopyup);
    }

    #[test]
    fn attributes_of_binds() {
        assert_eq!(
            of(&["rbind", "ro", "suid"]).attributes(),
            (libc::MOUNT_ATTR_RDONLY, libc::MOUNT_ATTR_NOSUID)
        );
        assert_eq!(of(&["bind", "relatime"]).attributes(), (0, libc::MOUNT_ATTR__ATIME));
        assert_eq!(
            of(&["bind", "noatime"]).attributes(),
            (libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME)
        );
    }

    #[test]
    fn the_whole_table_of_the_specification() {
        let names = names();
        for name in "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
            nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime \
            rbind rdev rdiratime relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime \
            rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow \
            runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap"
            .split_whitespace()
        {
            assert!(names.contains(&name), "{name}");
        }
    }
}
