//! The one table of knobs. Annotations, class files, flags, JSON and docs/knobs.md all come from it.

use super::value::{self, Amount, CpuMax, Selector, Unit};
use crate::error::{Error, Result};

/// How a knob's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grammar {
    /// `max` or a number.
    One(Unit),
    /// A number, without `max`.
    Number(Unit),
    /// `VALUE` for all devices, or a comma list of `SELECTOR=VALUE`.
    Devices(Unit),
    /// A comma list of `NAME=VALUE`.
    Keyed(Unit),
    /// `on` or `off`.
    Switch,
    /// `max`, `N%` or `QUOTA PERIOD`.
    CpuMax,
    /// `0-3,7`.
    CpuList,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A class of tc.
    ClassId,
    /// Whatever the kernel's file takes.
    Raw,
}

/// One knob.
#[derive(Debug)]
pub struct Knob {
    /// `blkio.write-bps`; the annotation is `hydra.` and this, the flag `--` and this with dashes.
    pub name: &'static str,
    pub grammar: Grammar,
    /// Smallest and largest number, in the base unit.
    pub range: (u64, u64),
    /// The file of cgroup v1; empty where v1 has none.
    pub v1: &'static str,
    /// The file of cgroup v2; empty where v2 has none.
    pub v2: &'static str,
    /// The flag of this name is runc's: it changes the container's own configuration, not the operator's layer.
    pub runc_flag: bool,
    /// What it does, in one line.
    pub about: &'static str,
    /// What happens where the kernel or hierarchy has no such file.
    pub lacking: &'static str,
}

/// A knob's value, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Amount(Amount),
    Devices(Vec<(Selector, Amount)>),
    Keyed(Vec<(String, Amount)>),
    Switch(bool),
    CpuMax(CpuMax),
    ClassId(u32),
    Text(String),
}

const MANY: u64 = i64::MAX as u64;
const BLKIO_LACKING: &str = "refused: the kernel has no block IO throttling";
const MEM_V1: &str = "refused on v1: it has no such limit";
const REFUSED: &str = "refused by name";
const TOP_RATE: u64 = netlimit::MAX_RATE;

const fn net(name: &'static str, grammar: Grammar, about: &'static str) -> Knob {
    knob(name, grammar, "BPF in cgroup2", "BPF", about).lacking("as net.egress-rate")
}

const fn knob(
    name: &'static str,
    grammar: Grammar,
    v1: &'static str,
    v2: &'static str,
    about: &'static str,
) -> Knob {
    Knob { name, grammar, range: (0, MANY), v1, v2, runc_flag: false, about, lacking: REFUSED }
}

impl Knob {
    const fn range(mut self, min: u64, max: u64) -> Knob {
        self.range = (min, max);
        self
    }

    const fn v1(mut self, file: &'static str) -> Knob {
        self.v1 = file;
        self
    }

    const fn lacking(mut self, text: &'static str) -> Knob {
        self.lacking = text;
        self
    }

    const fn runc(mut self) -> Knob {
        self.runc_flag = true;
        self
    }
}

use Grammar::{ClassId, CpuList, CpuMax as CpuMaxValue, Devices, Keyed, Number, One, Raw, Switch, Word};

/// Every knob, by name.
pub const KNOBS: &[Knob] = &[
    knob(
        "blkio.read-bps",
        Devices(Unit::Rate),
        "blkio.throttle.read_bps_device",
        "io.max",
        "bytes read per second, for each device",
    )
    .range(1, MANY)
    .lacking(BLKIO_LACKING),
    knob(
        "blkio.write-bps",
        Devices(Unit::Rate),
        "blkio.throttle.write_bps_device",
        "io.max",
        "bytes written per second, for each device",
    )
    .range(1, MANY)
    .lacking("v1 holds direct and synchronous writes only, not buffered ones: said by `inspect`"),
    knob(
        "blkio.read-iops",
        Devices(Unit::PerSecond),
        "blkio.throttle.read_iops_device",
        "io.max",
        "reads per second, for each device",
    )
    .range(1, u32::MAX as u64)
    .lacking(BLKIO_LACKING),
    knob(
        "blkio.write-iops",
        Devices(Unit::PerSecond),
        "blkio.throttle.write_iops_device",
        "io.max",
        "writes per second, for each device",
    )
    .range(1, u32::MAX as u64)
    .lacking("as blkio.write-bps"),
    knob(
        "blkio.total-read-bps",
        One(Unit::Rate),
        "blkio.throttle.read_bps_device",
        "io.max",
        "bytes read per second, over all devices together",
    )
    .range(1000, MANY)
    .lacking(BLKIO_LACKING),
    knob(
        "blkio.total-write-bps",
        One(Unit::Rate),
        "blkio.throttle.write_bps_device",
        "io.max",
        "bytes written per second, over all devices together",
    )
    .range(1000, MANY)
    .lacking("as blkio.write-bps"),
    knob(
        "blkio.total-read-iops",
        One(Unit::PerSecond),
        "blkio.throttle.read_iops_device",
        "io.max",
        "reads per second, over all devices together",
    )
    .range(10, u32::MAX as u64)
    .lacking(BLKIO_LACKING),
    knob(
        "blkio.total-write-iops",
        One(Unit::PerSecond),
        "blkio.throttle.write_iops_device",
        "io.max",
        "writes per second, over all devices together",
    )
    .range(10, u32::MAX as u64)
    .lacking("as blkio.write-bps"),
    knob(
        "blkio.follow-mounts",
        Switch,
        "",
        "",
        "limits for all devices follow mounts that appear while the container runs",
    )
    .lacking("always there"),
    knob(
        "blkio.weight",
        Number(Unit::Plain),
        "blkio.weight or blkio.bfq.weight",
        "io.bfq.weight or io.weight",
        "share of a contended device",
    )
    .range(10, 1000)
    .runc()
    .lacking("refused: wants the BFQ scheduler or, on v2, iocost"),
    knob(
        "blkio.weight-device",
        Devices(Unit::Plain),
        "blkio.weight_device or blkio.bfq.weight_device",
        "io.bfq.weight or io.weight",
        "share of one contended device",
    )
    .range(10, 1000)
    .lacking("refused: wants the BFQ scheduler or, on v2, iocost"),
    knob(
        "blkio.latency",
        Devices(Unit::Micros),
        "",
        "io.latency",
        "target of the time that an operation takes",
    )
    .range(1, 1_000_000_000)
    .lacking("refused: wants v2 and CONFIG_BLK_CGROUP_IOLATENCY"),
    knob("memory.limit", One(Unit::Bytes), "memory.limit_in_bytes", "memory.max", "memory in use")
        .range(4096, MANY),
    knob(
        "memory.reservation",
        One(Unit::Bytes),
        "memory.soft_limit_in_bytes",
        "memory.low",
        "memory kept when the host is short of it",
    )
    .runc(),
    knob(
        "memory.swap",
        One(Unit::Bytes),
        "memory.memsw.limit_in_bytes",
        "memory.swap.max",
        "memory and swap together, as runc's --memory-swap",
    )
    .range(4096, MANY)
    .runc()
    .lacking("refused where swap isn't accounted"),
    knob(
        "memory.swap-max",
        One(Unit::Bytes),
        "memory.memsw.limit_in_bytes",
        "memory.swap.max",
        "swap alone; v1 writes it together with memory.limit, which it needs",
    )
    .lacking("refused where swap isn't accounted"),
    knob("memory.high", One(Unit::Bytes), "", "memory.high", "memory above which processes are slowed down")
        .lacking(MEM_V1),
    knob("memory.min", One(Unit::Bytes), "", "memory.min", "memory that is never reclaimed").lacking(MEM_V1),
    knob(
        "memory.low",
        One(Unit::Bytes),
        "memory.soft_limit_in_bytes",
        "memory.low",
        "memory that is reclaimed last; on v1 the soft limit",
    ),
    knob(
        "memory.swap-high",
        One(Unit::Bytes),
        "",
        "memory.swap.high",
        "swap above which processes are slowed down",
    )
    .lacking(MEM_V1),
    knob("memory.zswap-max", One(Unit::Bytes), "", "memory.zswap.max", "compressed swap kept in memory")
        .lacking(MEM_V1),
    knob("memory.oom-group", Switch, "", "memory.oom.group", "the OOM killer takes the whole container")
        .lacking(MEM_V1),
    knob("memory.swappiness", Number(Unit::Plain), "memory.swappiness", "", "eagerness to swap")
        .range(0, 100)
        .lacking("refused on v2: it has no such file"),
    knob(
        "cpu.weight",
        Number(Unit::Plain),
        "cpu.shares",
        "cpu.weight",
        "share of a contended CPU; 100 is the usual one, written to v1 as shares x 10.24",
    )
    .range(1, 10_000),
    knob(
        "cpu.max",
        CpuMaxValue,
        "cpu.cfs_quota_us, cpu.cfs_period_us",
        "cpu.max",
        "CPU time per period: max, N% of one CPU, or QUOTA PERIOD",
    ),
    knob(
        "cpu.share",
        Number(Unit::Plain),
        "cpu.shares",
        "cpu.weight",
        "share of a contended CPU as v1 counts it; 1024 is the usual one",
    )
    .range(2, 262_144)
    .runc(),
    knob("cpu.quota", One(Unit::Micros), "cpu.cfs_quota_us", "cpu.max", "CPU time in a period")
        .range(1000, MANY / 1000)
        .runc(),
    knob("cpu.period", Number(Unit::Micros), "cpu.cfs_period_us", "cpu.max", "length of the period")
        .range(1000, 1_000_000)
        .runc(),
    knob(
        "cpu.burst",
        Number(Unit::Micros),
        "cpu.cfs_burst_us",
        "cpu.max.burst",
        "unused quota that may be saved up",
    )
    .range(0, MANY / 1000)
    .runc(),
    knob("cpu.idle", Switch, "cpu.idle", "cpu.idle", "runs only where nothing else wants the CPU").runc(),
    knob("cpu.rt-period", Number(Unit::Micros), "cpu.rt_period_us", "", "length of the real-time period")
        .range(1, 1_000_000_000)
        .runc()
        .lacking("refused on v2: it has no such file"),
    knob("cpu.rt-runtime", Number(Unit::Micros), "cpu.rt_runtime_us", "", "real-time CPU time in a period")
        .range(0, 1_000_000_000)
        .runc()
        .lacking("refused on v2: it has no such file"),
    knob("cpuset.cpus", CpuList, "cpuset.cpus", "cpuset.cpus", "CPUs it may run on").runc(),
    knob("cpuset.mems", CpuList, "cpuset.mems", "cpuset.mems", "memory nodes it may use").runc(),
    knob("pids.limit", One(Unit::Count), "pids.max", "pids.max", "number of tasks")
        .range(0, 4_194_304)
        .runc(),
    knob(
        "hugetlb.limit",
        Keyed(Unit::Bytes),
        "hugetlb.SIZE.limit_in_bytes",
        "hugetlb.SIZE.max",
        "huge pages by page size, as 2MB=1GiB",
    ),
    knob("rdma.hca-handles", Keyed(Unit::Count), "rdma.max", "rdma.max", "RDMA handles by device")
        .range(0, u32::MAX as u64),
    knob("rdma.hca-objects", Keyed(Unit::Count), "rdma.max", "rdma.max", "RDMA objects by device")
        .range(0, u32::MAX as u64),
    knob("misc.max", Keyed(Unit::Count), "misc.max", "misc.max", "miscellaneous resources by name"),
    net("net.egress-rate", One(Unit::Rate), "bytes sent per second")
        .range(1000, TOP_RATE)
        .lacking("refused: wants a cgroup2 mount and CONFIG_CGROUP_BPF"),
    net("net.ingress-rate", One(Unit::Rate), "bytes received per second").range(1000, TOP_RATE),
    net("net.egress-pps", One(Unit::PerSecond), "packets sent per second").range(1, TOP_RATE),
    net("net.ingress-pps", One(Unit::PerSecond), "packets received per second").range(1, TOP_RATE),
    net(
        "net.egress-burst",
        One(Unit::Bytes),
        "bytes that may be sent at once after a pause; max is the usual 300 ms' worth",
    )
    .range(1500, TOP_RATE),
    net("net.ingress-burst", One(Unit::Bytes), "bytes that may be received at once after a pause")
        .range(1500, TOP_RATE),
    net("net.egress-pps-burst", One(Unit::Count), "packets that may be sent at once after a pause")
        .range(1, TOP_RATE),
    net("net.ingress-pps-burst", One(Unit::Count), "packets that may be received at once after a pause")
        .range(1, TOP_RATE),
    net("net.new-conns", One(Unit::PerSecond), "connections opened per second").range(1, TOP_RATE),
    net(
        "net.new-conns-burst",
        One(Unit::Count),
        "connections opened at once after a pause; max is one second's worth",
    )
    .range(1, TOP_RATE),
    net("net.count-loopback", Switch, "traffic of the loopback interface counts too"),
    net("net.ingress-mode", Word(&["police", "queue"]), "drop at once what exceeds the rate, or queue it")
        .lacking("queue is refused where there is no veth on the host's side"),
    net("net.classid", ClassId, "class of the container's packets, for tc and nft")
        .v1("net_cls.classid")
        .lacking("refused where neither net_cls nor BPF is there"),
    net("net.priority", Keyed(Unit::Plain), "priority of the container's packets by interface")
        .range(0, u32::MAX as u64 - 1)
        .v1("net_prio.ifpriomap")
        .lacking("as net.classid"),
];

/// Prefix of the knobs that name a kernel file: `cgroup.memory.high`.
pub const RAW: &str = "cgroup.";

/// What any raw file is to the rest of the code.
pub static RAW_KNOB: Knob =
    knob("cgroup.FILE", Raw, "FILE", "FILE", "the value is written to the file as it is")
        .lacking("refused: no such file");

/// The knob of that name, or an error that says which one was perhaps meant.
pub fn find(name: &str) -> Result<&'static Knob> {
    if let Some(file) = name.strip_prefix(RAW) {
        return raw_file(name, file).map(|()| &RAW_KNOB);
    }
    KNOBS.iter().find(|k| k.name == name).ok_or_else(|| unknown(&shorten(name)))
}

fn unknown(name: &str) -> Error {
    let group = name.split('.').next().unwrap_or_default();
    let siblings: Vec<_> =
        KNOBS.iter().map(|k| k.name).filter(|n| n.split('.').next() == Some(group)).collect();
    if siblings.is_empty() {
        return Error::invalid(format!(
            "unknown knob {name}: the groups are blkio, memory, cpu, cpuset, pids, hugetlb, rdma, misc, net and cgroup"
        ));
    }
    Error::invalid(format!("unknown knob {name}: {group} has {}", siblings.join(", ")))
}

/// Files that move, stop or open a container instead of limiting it.
const NOT_LIMITS: [&str; 14] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.kill",
    "cgroup.freeze",
    "cgroup.type",
    "cgroup.subtree_control",
    "cgroup.clone_children",
    "cgroup.event_control",
    "cgroup.sane_behavior",
    "freezer.state",
    "devices.allow",
    "devices.deny",
    "devices.list",
    "memory.force_empty",
];

/// Refuses what isn't the plain name of a limit's file.
fn raw_file(knob: &str, file: &str) -> Result<()> {
    let plain = file.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !plain || file.starts_with('.') || !file.contains('.') || file.contains("..") || file.ends_with('.') {
        let (knob, file) = (shorten(knob), shorten(file));
        return Err(Error::invalid(format!(
            "{knob}: '{file}' is not the name of a controller's file, such as memory.high"
        )));
    }
    if NOT_LIMITS.contains(&file) {
        return Err(Error::invalid(format!("{knob}: {file} is not a limit and can't be set as a knob")));
    }
    Ok(())
}

impl Knob {
    /// Reads a value. The error is one line that names the knob, the value and what is allowed.
    pub fn parse(&self, name: &str, text: &str) -> Result<Value> {
        let text = text.trim();
        let value = self.read(text).and_then(|v| self.in_range(&v).map(|()| v));
        value.map_err(|why| Error::invalid(format!("{name}: '{}' {}", shorten(text), one_line(&why))))
    }

    fn read(&self, text: &str) -> Result<Value, String> {
        Ok(match self.grammar {
            One(unit) => Value::Amount(value::amount(text, unit).map_err(|e| with_max(e, unit))?),
            Number(unit) => Value::Amount(Amount::N(value::number(text, unit)?)),
            Devices(unit) => Value::Devices(value::devices(text, unit)?),
            Keyed(unit) => Value::Keyed(value::keyed(text, unit)?),
            CpuMaxValue => Value::CpuMax(value::cpu_max(text)?),
            CpuList => Value::Text(value::cpu_list(text)?),
            ClassId => Value::ClassId(value::classid(text)?),
            Switch => Value::Switch(match text {
                "on" | "true" | "1" => true,
                "off" | "false" | "0" => false,
                _ => return Err("is neither on nor off".into()),
            }),
            Word(words) if words.contains(&text) => Value::Text(text.into()),
            Word(words) => return Err(format!("is not one of {}", words.join(", "))),
            Raw if text.is_empty() || text.contains('\0') => return Err("is no value for a file".into()),
            Raw => Value::Text(text.into()),
        })
    }

    fn in_range(&self, value: &Value) -> Result<(), String> {
        let check = |amount: &Amount| match amount {
            Amount::N(n) if *n < self.range.0 || *n > self.range.1 => Err(format!(
                "is out of range; allowed: {}{}",
                self.range_text(),
                if *n == 0 && self.lifts() { ", or max to lift it" } else { "" }
            )),
            _ => Ok(()),
        };
        match value {
            Value::Amount(a) => check(a),
            Value::Devices(list) => list.iter().try_for_each(|(_, a)| check(a)),
            Value::Keyed(list) => list.iter().try_for_each(|(_, a)| check(a)),
            _ => Ok(()),
        }
    }

    /// `max` is a value.
    pub fn lifts(&self) -> bool {
        matches!(self.grammar, One(_) | Devices(_) | Keyed(_) | CpuMaxValue)
    }

    /// The value is kept in this file of the kernel, of either version.
    pub fn writes(&self, file: &str) -> bool {
        let words = self.v1.split([' ', ',']).chain(self.v2.split([' ', ',']));
        words.filter(|word| word.contains('.')).any(|known| match known.split_once("SIZE") {
            Some((before, after)) => file.starts_with(before) && file.ends_with(after),
            None => known == file,
        })
    }

    fn unit(&self) -> Option<Unit> {
        match self.grammar {
            One(unit) | Number(unit) | Devices(unit) | Keyed(unit) => Some(unit),
            _ => None,
        }
    }

    /// The range as text, in this knob's unit; empty where there is nothing to say.
    pub fn range_text(&self) -> String {
        let Some(unit) = self.unit() else { return String::new() };
        match self.range {
            (0, MANY) => "any".into(),
            (min, max) if max >= MANY / 1000 => format!("{} and above", unit.show(min)),
            (min, max) => format!("{} to {}", unit.show(min), unit.show(max)),
        }
    }

    /// How the value is written, for the documentation and for help texts.
    pub fn value_text(&self) -> String {
        match self.grammar {
            One(unit) => format!("{} or max", unit.name()),
            Number(unit) => unit.name().into(),
            Devices(unit) => format!("{0} or SELECTOR={0},…", unit.name()),
            Keyed(unit) => format!("NAME={},…", unit.name()),
            Switch => "on or off".into(),
            CpuMaxValue => "max, N% or QUOTA PERIOD".into(),
            CpuList => "0-3,7".into(),
            Word(words) => words.join(" or "),
            ClassId => "MAJOR:MINOR".into(),
            Raw => "as the kernel takes it".into(),
        }
    }

    /// The flag, without dashes in front: `blkio-write-bps`.
    pub fn flag(&self) -> String {
        self.name.replace('.', "-")
    }
}

fn with_max(text: String, unit: Unit) -> String {
    text.replace(unit.allowed(), &format!("{}, or max", unit.allowed()))
}

/// Messages quote parts of values, which may hold anything.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Keeps what a message quotes to one line of readable length.
fn shorten(text: &str) -> String {
    let clean: String = one_line(text).chars().take(80).collect();
    if text.chars().count() > 80 {
        clean + "…"
    } else {
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_flags_are_unique_and_well_formed() {
        for (i, k) in KNOBS.iter().enumerate() {
            let (group, rest) = k.name.split_once('.').expect("a group");
            assert!(!rest.contains('.') && !group.contains('-'), "{}", k.name);
            assert!(KNOBS[..i].iter().all(|other| other.flag() != k.flag()), "{}", k.name);
            assert!(k.range.0 <= k.range.1 && !k.about.is_empty() && !k.lacking.is_empty());
        }
    }

    #[test]
    fn errors_name_knob_value_and_what_is_allowed() {
        let e = find("blkio.write-bps").unwrap().parse("blkio.write-bps", "10mbps").unwrap_err().to_string();
        assert_eq!(e, "blkio.write-bps: '10mbps' is ambiguous: 'mbps' is bits to some and bytes to others; write mbit or MB");
        let e = find("blkio.write-bps").unwrap().parse("blkio.write-bps", "0").unwrap_err().to_string();
        assert_eq!(e, "blkio.write-bps: '0' is out of range; allowed: 1 and above, or max to lift it");
        let e = find("cpu.weight").unwrap().parse("cpu.weight", "max").unwrap_err().to_string();
        assert_eq!(e, "cpu.weight: 'max' is not a number; allowed: a number");
        let e = find("blkio.wriet-bps").unwrap_err().to_string();
        assert!(e.starts_with("unknown knob blkio.wriet-bps: blkio has blkio.read-bps, "), "{e}");
        assert!(find("bulkio.x").unwrap_err().to_string().contains("the groups are"));
        for (knob, value) in [("net.ingress-pps", "5\n!"), ("blkio.read-bps", "/a\nb"), ("cgroup.a\n.b", "1")]
        {
            let e = find(knob).and_then(|k| k.parse(knob, value)).unwrap_err().to_string();
            assert!(!e.contains('\n'), "{e:?}");
        }
        assert!(!find("\n").unwrap_err().to_string().contains('\n'));
    }

    #[test]
    fn raw_files() {
        assert!(find("cgroup.memory.high").is_ok());
        for bad in [
            "cgroup.",
            "cgroup.tasks",
            "cgroup.a/b.c",
            "cgroup...",
            "cgroup.cgroup.procs",
            "cgroup.devices.allow",
            "cgroup..x",
        ] {
            assert!(find(bad).is_err(), "{bad}");
        }
    }
}
