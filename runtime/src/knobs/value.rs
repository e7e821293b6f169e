//! Values as people write them: `40MiB`, `2k`, `/data=10MB,8:0=max`. Pure.
//!
//! One spelling has one meaning. What could be read in two ways (`mbps`, `M`, `mb`) is refused with both
//! readings named.

use std::fmt;

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes per second; bits are divided by eight.
    Rate,
    /// Operations, packets or connections per second.
    PerSecond,
    Bytes,
    /// Microseconds; a bare number is microseconds.
    Micros,
    /// A bare number, optionally with `k`, `M`, `G` (powers of 1000).
    Count,
    /// A bare number and nothing else.
    Plain,
}

impl Unit {
    /// The values this unit takes, for messages and for the documentation.
    pub fn allowed(self) -> &'static str {
        match self {
            Unit::Rate => "bytes per second as B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB, bits per second as bit, kbit, mbit, gbit; a bare number is bytes per second",
            Unit::PerSecond => "a number per second, optionally with k, M or G (powers of 1000)",
            Unit::Bytes => "bytes as B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB; a bare number is bytes",
            Unit::Micros => "microseconds, or a number with us, ms or s",
            Unit::Count => "a number, optionally with k, M or G (powers of 1000)",
            Unit::Plain => "a number",
        }
    }

    /// A short name for the table in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Rate => "RATE",
            Unit::PerSecond => "N/s",
            Unit::Bytes => "SIZE",
            Unit::Micros => "TIME",
            Unit::Count | Unit::Plain => "N",
        }
    }

    /// A number of this unit as people read it; parses back to the same number.
    pub fn show(self, n: u64) -> String {
        match self {
            Unit::Rate | Unit::Bytes => show_bytes(n),
            Unit::PerSecond | Unit::Count => {
                for (factor, suffix) in [(1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")] {
                    if n >= factor && n % factor == 0 {
                        return format!("{}{suffix}", n / factor);
                    }
                }
                n.to_string()
            }
            Unit::Micros if n >= 1000 && n % 1000 == 0 => format!("{}ms", n / 1000),
            Unit::Micros => format!("{n}us"),
            Unit::Plain => n.to_string(),
        }
    }
}

fn show_bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 8] = [
        (1 << 40, "TiB"),
        (1_000_000_000_000, "TB"),
        (1 << 30, "GiB"),
        (1_000_000_000, "GB"),
        (1 << 20, "MiB"),
        (1_000_000, "MB"),
        (1 << 10, "KiB"),
        (1000, "kB"),
    ];
    match UNITS.iter().find(|(factor, _)| n >= *factor && n % factor == 0) {
        Some((factor, suffix)) => format!("{}{suffix}", n / factor),
        None => n.to_string(),
    }
}

/// A limit, or the word `max` that lifts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Amount {
    N(u64),
    Max,
}

impl Amount {
    /// The number, or `None` for `max`.
    pub fn number(self) -> Option<u64> {
        match self {
            Amount::N(n) => Some(n),
            Amount::Max => None,
        }
    }

    /// As -1 for `max`, the way the OCI specification lifts memory and pids limits.
    pub fn signed(self) -> i64 {
        self.number().map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::N(n) => write!(f, "{n}"),
            Amount::Max => f.write_str("max"),
        }
    }
}

/// Reads `max` or a number of `unit`. The error is the part of a sentence that says what is wrong.
pub fn amount(text: &str, unit: Unit) -> Result<Amount, String> {
    match text {
        "max" => Ok(Amount::Max),
        _ => number(text, unit).map(Amount::N),
    }
}

/// Reads a number of `unit`, exactly: a decimal fraction must come to a whole number of the base unit.
pub fn number(text: &str, unit: Unit) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    if digits.is_empty() {
        return Err(format!("is not a number; allowed: {}", unit.allowed()));
    }
    let suffix = suffix.strip_prefix(' ').unwrap_or(suffix);
    let (factor, divisor) = factor(suffix, unit)?;
    let n = scaled(digits, factor).ok_or_else(|| match digits.parse::<f64>() {
        Ok(n) if n * factor as f64 >= u64::MAX as f64 => "is too large".to_string(),
        _ => "is not a whole number of the base unit".to_string(),
    })?;
    Ok(n / divisor)
}

/// `digits` (with at most one point) times `factor`, if that is a whole number that fits.
fn scaled(digits: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() || fraction.len() > 12 || (digits.ends_with('.')) {
        return None;
    }
    let scale = 10u128.pow(fraction.len() as u32);
    let parts: u128 = match fraction {
        "" => 0,
        _ => fraction.parse().ok()?,
    };
    let n = whole.parse::<u128>().ok()?.checked_mul(scale)?.checked_add(parts)?.checked_mul(factor.into())?;
    if n % scale != 0 {
        return None;
    }
    u64::try_from(n / scale).ok()
}

/// What a suffix multiplies and divides by.
fn factor(suffix: &str, unit: Unit) -> Result<(u64, u64), String> {
    const K: u64 = 1000;
    let wrong = || Err(format!("has the unknown unit '{suffix}'; allowed: {}", unit.allowed()));
    let factor = match unit {
        _ if suffix.is_empty() => 1,
        Unit::Plain => return wrong(),
        Unit::Count | Unit::PerSecond => match suffix {
            "k" | "K" => K,
            "M" => K * K,
            "G" => K * K * K,
            _ => return wrong(),
        },
        Unit::Micros => match suffix {
            "us" | "µs" => 1,
            "ms" => K,
            "s" => K * K,
            _ => return wrong(),
        },
        Unit::Rate | Unit::Bytes => return bytes(suffix, unit),
    };
    Ok((factor, 1))
}

fn bytes(suffix: &str, unit: Unit) -> Result<(u64, u64), String> {
    const K: u64 = 1000;
    let base = match (unit, suffix.strip_suffix("/s")) {
        (Unit::Rate, Some(base)) => base,
        _ => suffix,
    };
    let factor = match base {
        "B" => 1,
        "kB" | "KB" => K,
        "MB" => K * K,
        "GB" => K * K * K,
        "TB" => K * K * K * K,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return bits(base, suffix, unit),
    };
    Ok((factor, 1))
}

fn bits(base: &str, suffix: &str, unit: Unit) -> Result<(u64, u64), String> {
    const K: u64 = 1000;
    let lower = base.to_ascii_lowercase();
    match (unit, lower.as_str()) {
        (Unit::Rate, "bit") => return Ok((1, 8)),
        (Unit::Rate, "kbit") => return Ok((K, 8)),
        (Unit::Rate, "mbit") => return Ok((K * K, 8)),
        (Unit::Rate, "gbit") => return Ok((K * K * K, 8)),
        _ => {}
    }
    if lower.ends_with("bps") {
        let prefix = lower.trim_end_matches("bps").to_ascii_uppercase();
        return Err(format!(
            "is ambiguous: '{suffix}' is bits to some and bytes to others; write {}bit or {}B",
            prefix.to_ascii_lowercase(),
            if prefix == "K" { "k" } else { &prefix },
        ));
    }
    if let "b" | "k" | "m" | "g" | "t" | "kb" | "mb" | "gb" | "tb" = lower.as_str() {
        let prefix = &lower[..1].to_ascii_uppercase();
        if prefix == "B" {
            return Err("is ambiguous: 'b' is a bit to some and a byte to others; write B or bit".into());
        }
        let decimal = if prefix == "K" { "k" } else { prefix };
        return Err(format!(
            "is ambiguous: '{suffix}' is a power of 1000 to some and of 1024 to others; write {decimal}B or {prefix}iB"
        ));
    }
    Err(format!("has the unknown unit '{suffix}'; allowed: {}", unit.allowed()))
}

/// Which block devices a limit is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// Every device behind the container's mounts.
    All,
    /// Every real disk of the host.
    Disks,
    /// A path of the host, or a device node.
    Host(String),
    /// A path as the container sees it.
    Container(String),
    /// A device by number.
    Number(u32, u32),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::All => f.write_str("all"),
            Selector::Disks => f.write_str("disks"),
            Selector::Host(path) => f.write_str(&escape(path)),
            Selector::Container(path) => write!(f, "container:{}", escape(path)),
            Selector::Number(major, minor) => write!(f, "{major}:{minor}"),
        }
    }
}

fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(',', "\\,")
}

const SELECTORS: &str = "all, disks, /path, container:/path, /dev/NAME or MAJOR:MINOR";

fn selector(text: &str) -> Result<Selector, String> {
    match text {
        "all" => return Ok(Selector::All),
        "disks" => return Ok(Selector::Disks),
        _ => {}
    }
    if let Some(path) = text.strip_prefix("container:") {
        if path.starts_with('/') {
            return Ok(Selector::Container(path.into()));
        }
    } else if text.starts_with('/') {
        return Ok(Selector::Host(text.into()));
    } else if let Some((major, minor)) = text.split_once(':') {
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if digits(major) && digits(minor) {
            if let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) {
                return Ok(Selector::Number(major, minor));
            }
        }
    }
    Err(format!("has the unknown selector '{text}'; allowed: {SELECTORS}"))
}

/// Splits at commas that no backslash precedes, and takes those backslashes out.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let last = parts.len() - 1;
        match c {
            ',' => parts.push(String::new()),
            '\\' => match chars.next() {
                Some(escaped @ (',' | '\\')) => parts[last].push(escaped),
                Some(other) => parts[last].extend(['\\', other]),
                None => parts[last].push('\\'),
            },
            c => parts[last].push(c),
        }
    }
    parts
}

/// Reads `RATE` (for all devices) or a comma list of `SELECTOR=RATE`.
pub fn devices(text: &str, unit: Unit) -> Result<Vec<(Selector, Amount)>, String> {
    if !text.contains('=') && !text.contains(',') {
        return Ok(vec![(Selector::All, amount(text, unit)?)]);
    }
    let mut list: Vec<(Selector, Amount)> = Vec::new();
    for item in split(text) {
        let Some((name, value)) = item.rsplit_once('=') else {
            return Err(format!("has '{item}' where SELECTOR=VALUE is wanted; selectors: {SELECTORS}"));
        };
        let name = selector(name.trim())?;
        let value = value.trim();
        let value = amount(value, unit).map_err(|e| format!("has '{value}', which {e}"))?;
        if list.iter().any(|(known, _)| *known == name) {
            return Err(format!("names {name} twice"));
        }
        list.push((name, value));
    }
    Ok(list)
}

/// Reads a comma list of `KEY=VALUE`.
pub fn keyed(text: &str, unit: Unit) -> Result<Vec<(String, Amount)>, String> {
    let mut list: Vec<(String, Amount)> = Vec::new();
    for item in text.split(',') {
        let Some((key, value)) = item.split_once('=') else {
            return Err(format!("has '{item}' where NAME=VALUE is wanted"));
        };
        let key = key.trim();
        if key.is_empty() || key.contains(|c: char| c.is_whitespace() || c == '/' || c.is_control()) {
            return Err(format!("has the bad name '{key}'"));
        }
        let value = value.trim();
        let value = amount(value, unit).map_err(|e| format!("has '{value}', which {e}"))?;
        if list.iter().any(|(known, _)| known == key) {
            return Err(format!("names {key} twice"));
        }
        list.push((key.into(), value));
    }
    Ok(list)
}

/// Reads a list of CPUs or memory nodes, `0-3,7`, and gives it back as it is.
pub fn cpu_list(text: &str) -> Result<String, String> {
    let wrong = || "is not a list such as 0-3,7".to_string();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |s: &str| s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse::<u32>().ok()).flatten();
        let (first, last) = (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?);
        if first > last {
            return Err(wrong());
        }
    }
    Ok(text.into())
}

/// CPU time per period, both in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuMax {
    pub quota: Amount,
    /// Absent where only the share of a CPU was said; the kernel's own period stays.
    pub period: Option<u64>,
}

/// Reads `max`, `150%` (of one CPU) or `QUOTA PERIOD` in microseconds.
pub fn cpu_max(text: &str) -> Result<CpuMax, String> {
    const PERIOD: u64 = 100_000;
    if let Some(percent) = text.strip_suffix('%') {
        let quota = scaled(percent, PERIOD / 100).filter(|q| *q >= 1000);
        let quota = quota.ok_or("is not a percentage of a CPU; allowed: 1% and above")?;
        return Ok(CpuMax { quota: Amount::N(quota), period: Some(PERIOD) });
    }
    let (quota, period) = match text.split_once(' ') {
        Some((quota, period)) => (quota, Some(period)),
        None if text == "max" => (text, None),
        None => return Err("is neither max, nor N% of a CPU, nor QUOTA PERIOD".into()),
    };
    let quota = amount(quota, Unit::Micros)?;
    let period = period.map(|p| number(p, Unit::Micros)).transpose()?;
    if period.is_some_and(|p| !(1000..=1_000_000).contains(&p)) {
        return Err("has a period outside of 1ms to 1s".into());
    }
    if quota.number().is_some_and(|q| q < 1000) {
        return Err("has a quota below 1ms".into());
    }
    Ok(CpuMax { quota, period })
}

/// Reads net_cls's class: `MAJOR:MINOR` in hexadecimal as tc writes it, `0xMMMMmmmm`, or a decimal number.
pub fn classid(text: &str) -> Result<u32, String> {
    let wrong =
        || "is not a class; allowed: MAJOR:MINOR in hexadecimal (10:1), 0x100001 or a number".to_string();
    let hex = |s: &str, width: usize| -> Option<u32> {
        let fits = !s.is_empty() && s.len() <= width && s.bytes().all(|b| b.is_ascii_hexdigit());
        if fits {
            u32::from_str_radix(s, 16).ok()
        } else {
            None
        }
    };
    if let Some((major, minor)) = text.split_once(':') {
        let (major, minor) = (hex(major, 4).ok_or_else(wrong)?, hex(minor, 4).ok_or_else(wrong)?);
        return Ok(major << 16 | minor);
    }
    match text.strip_prefix("0x") {
        Some(digits) => hex(digits, 8).ok_or_else(wrong),
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().map_err(|_| wrong()),
        None => Err(wrong()),
    }
}

/// runc's size flags: powers of 1024 whatever the suffix (`512m`, `1G`, `64MB`); -1 lifts. Truncates
/// fractions, as go-units does.
pub fn runc_size(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let suffix = suffix.strip_prefix(' ').unwrap_or(suffix).to_ascii_lowercase();
    let shift = match suffix.trim_end_matches("ib").trim_end_matches('b') {
        "" if suffix != "ib" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err("is not a size such as 512m, 1G or 1073741824".into()),
    };
    let n: f64 = digits.parse().map_err(|_| "is not a size such as 512m, 1G or 1073741824".to_string())?;
    let n = n * (1u64 << shift) as f64;
    if n >= i64::MAX as f64 {
        return Err("is too large".into());
    }
    // Whole numbers above 2^53 keep their last digits.
    Ok(match (shift, digits.parse::<i64>()) {
        (0, Ok(n)) => n,
        _ => n as i64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, n) in [
            ("1", 1),
            ("400MB", 400_000_000),
            ("40MiB", 40 << 20),
            ("1.5GB", 1_500_000_000),
            ("10mbit", 1_250_000),
            ("1Gbit", 125_000_000),
            ("8bit", 1),
            ("10MB/s", 10_000_000),
            ("2 kB", 2000),
            ("0.5KiB", 512),
        ] {
            assert_eq!(number(text, Unit::Rate), Ok(n), "{text}");
        }
    }

    #[test]
    fn refusals_say_why() {
        for (text, unit, part) in [
            ("10mbps", Unit::Rate, "write mbit or MB"),
            ("10bps", Unit::Rate, "write bit or B"),
            ("10M", Unit::Rate, "write MB or MiB"),
            ("10mb", Unit::Rate, "write MB or MiB"),
            ("10k", Unit::Rate, "write kB or KiB"),
            ("10mbit", Unit::Bytes, "unknown unit 'mbit'"),
            ("ten", Unit::Rate, "not a number"),
            ("-1", Unit::Rate, "not a number"),
            ("0.1", Unit::Rate, "whole number"),
            ("1.", Unit::Rate, "whole number"),
            ("99999999999TB", Unit::Rate, "too large"),
            ("2x", Unit::PerSecond, "unknown unit 'x'"),
            ("1e3", Unit::Plain, "unknown unit 'e3'"),
            ("", Unit::Plain, "not a number"),
        ] {
            let e = number(text, unit).unwrap_err();
            assert!(e.contains(part), "{text}: {e}");
        }
    }

    #[test]
    fn shown_numbers_read_back() {
        for unit in [Unit::Rate, Unit::PerSecond, Unit::Bytes, Unit::Micros, Unit::Count, Unit::Plain] {
            for n in [0, 1, 999, 1000, 1024, 1 << 20, 1_000_000, 1_500_000, 10_485_761, u64::MAX] {
                assert_eq!(number(&unit.show(n), unit), Ok(n), "{unit:?} {n}");
            }
        }
    }

    #[test]
    fn lists_of_devices() {
        let all = devices("40MB", Unit::Rate).unwrap();
        assert_eq!(all, [(Selector::All, Amount::N(40_000_000))]);
        let list = devices("disks=1MB, /a\\,b=c=2kB,container:/x=max,8:16=5", Unit::Rate).unwrap();
        assert_eq!(list[0].0, Selector::Disks);
        assert_eq!(list[1], (Selector::Host("/a,b=c".into()), Amount::N(2000)));
        assert_eq!(list[2], (Selector::Container("/x".into()), Amount::Max));
        assert_eq!(list[3], (Selector::Number(8, 16), Amount::N(5)));
        for bad in ["", ",", "all", "8:=1", "x=1", "/a=1,/a=2", "container:x=1", "8:0=1mbps", "8:+1=2"] {
            assert!(devices(bad, Unit::Rate).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_values() {
        assert_eq!(cpu_max("150%").unwrap().quota, Amount::N(150_000));
        assert_eq!(cpu_max("50000 100000").unwrap().period, Some(100_000));
        assert_eq!(cpu_max("max").unwrap(), CpuMax { quota: Amount::Max, period: None });
        assert!(cpu_max("1.5").is_err() && cpu_max("0%").is_err() && cpu_max("50ms 2s").is_err());
        assert_eq!(classid("10:1"), Ok(0x10_0001));
        assert_eq!(classid("0x100001"), Ok(0x10_0001));
        assert_eq!(classid("1048577"), Ok(1_048_577));
        assert!(classid("1:2:3").is_err() && classid("+1").is_err() && classid("12345:1").is_err());
        assert!(cpu_list("0-3,7").is_ok() && cpu_list("3-0").is_err() && cpu_list("").is_err());
        assert_eq!(keyed("2MB=1GiB", Unit::Bytes).unwrap(), [("2MB".to_string(), Amount::N(1 << 30))]);
        assert!(keyed("2MB", Unit::Bytes).is_err() && keyed("a/b=1", Unit::Bytes).is_err());
    }

    #[test]
    fn sizes_of_runc_are_powers_of_1024() {
        for (text, n) in [
            ("512m", 512 << 20),
            ("1G", 1 << 30),
            ("64MB", 64 << 20),
            ("1.5k", 1536),
            ("-1", -1),
            ("7", 7),
            ("2KiB", 2048),
        ] {
            assert_eq!(runc_size(text), Ok(n), "{text}");
        }
        assert!(runc_size("x").is_err() && runc_size("1ib").is_err() && runc_size("1mx").is_err());
    }
}
