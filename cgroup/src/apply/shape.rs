//! How files are read and put back: most hold one value, some a line for each device or interface.

/// The key of a line, for files that have one for each device or name.
pub fn line_key<'a>(file: &str, value: &'a str) -> Option<&'a str> {
    let first = value.split_whitespace().next()?;
    let device = first.split_once(':').is_some_and(|(a, b)| number(a) && number(b));
    let named =
        matches!(file, "rdma.max" | "misc.max" | "net_prio.ifpriomap" | "dmem.max" | "dmem.min" | "dmem.low");
    (device || named).then_some(first)
}

fn number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// What follows the key to put a line back to where it is not listed.
pub fn unset_line(file: &str) -> &'static str {
    match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "io.latency" => "target=0",
        "rdma.max" => "hca_handle=max hca_object=max",
        "misc.max" | "dmem.max" => "max",
        "io.weight" | "io.bfq.weight" | "blkio.bfq.weight_device" => "default",
        // throttles, old weights, priorities
        _ => "0",
    }
}

fn line_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let rest =
        |line: &'a str| line.trim().strip_prefix(key)?.strip_prefix(char::is_whitespace).map(str::trim);
    text.lines().find_map(rest)
}

/// What is in force of that which `value` would change, as a line that puts it back.
pub fn present(file: &str, text: &str, value: &str) -> String {
    match line_key(file, value) {
        Some(key) => format!("{key} {}", line_of(text, key).unwrap_or(unset_line(file))),
        None => scalar(file, text),
    }
}

/// `value` in the form in which the file would show it.
pub fn asked(file: &str, value: &str) -> String {
    let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
    match file {
        "io.weight" | "io.bfq.weight" => value.strip_prefix("default ").unwrap_or(&value).to_string(),
        _ => value,
    }
}

fn scalar(file: &str, text: &str) -> String {
    let wanted = match file {
        "memory.oom_control" => line_of(text, "oom_kill_disable"),
        "io.weight" | "io.bfq.weight" | "blkio.bfq.weight" | "blkio.weight" => line_of(text, "default"),
        _ => None,
    };
    wanted.unwrap_or(text.trim()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value() {
        assert_eq!(present("memory.max", "max\n", "5"), "max");
        assert_eq!(present("cpu.max", "max 100000\n", "5000 10000"), "max 100000");
        assert_eq!(present("memory.oom_control", "oom_kill_disable 1\nunder_oom 0\n", "0"), "1");
        assert_eq!(present("io.weight", "default 100\n8:0 50\n", "200"), "100");
        assert_eq!(present("cpuset.cpus", "\n", "0"), "");
    }

    #[test]
    fn a_line_for_each_device() {
        let text = "8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=2 wbps=max riops=max wiops=max\n";
        assert_eq!(present("io.max", text, "8:16 rbps=9"), "8:16 rbps=2 wbps=max riops=max wiops=max");
        assert_eq!(present("io.max", text, "8:1 rbps=9"), "8:1 rbps=max wbps=max riops=max wiops=max");
        assert_eq!(present("blkio.throttle.read_bps_device", "7:0 5\n", "7:0 9"), "7:0 5");
        assert_eq!(present("blkio.throttle.read_bps_device", "7:0 5\n", "7:1 9"), "7:1 0");
        assert_eq!(present("io.weight", "default 100\n8:0 50\n", "8:16 7"), "8:16 default");
        assert_eq!(present("io.latency", "8:0 target=75\n", "8:0 target=1"), "8:0 target=75");
    }

    #[test]
    fn a_line_for_each_name() {
        assert_eq!(present("net_prio.ifpriomap", "lo 0\neth0 5\n", "eth0 7"), "eth0 5");
        assert_eq!(present("misc.max", "sev 4\n", "sev 2"), "sev 4");
        assert_eq!(present("rdma.max", "", "mlx hca_handle=1"), "mlx hca_handle=max hca_object=max");
    }

    #[test]
    fn what_is_there_already_is_seen() {
        assert_eq!(asked("io.weight", "default  100"), present("io.weight", "default 100\n", "default  100"));
        let text = "8:0 rbps=1 wbps=max riops=max wiops=max\n";
        assert_eq!(asked("io.max", text), present("io.max", text, text));
    }
}
