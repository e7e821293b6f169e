//! `linux.netDevices`: devices of the runtime's network namespace that become the container's. The parent moves them;
//! when the container's namespace ends, the kernel gives physical ones back to the initial one.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::netlink::{Address, Link, Netlink};
use crate::error::{Context, Error, Result};
use crate::invalid;
use crate::spec;
use crate::sys::process::setns;

/// Names here and there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetDevices(Vec<(String, String)>);

/// With the NUL.
const IFNAMSIZ: usize = 16;

/// `private` says that the container has a network namespace of its own.
pub fn parse(given: &BTreeMap<String, spec::NetDevice>, private: bool, rootless: bool) -> Result<NetDevices> {
    if given.is_empty() {
        return Ok(NetDevices::default());
    }
    if !private {
        invalid!("unable to move network devices without a NET namespace");
    }
    if rootless {
        invalid!("network devices are not supported for rootless containers");
    }
    let mut devices: Vec<(String, String)> = Vec::new();
    for (name, device) in given {
        let to = if device.name.is_empty() { name } else { &device.name };
        for name in [name, to] {
            if !is_valid(name) {
                invalid!("invalid network device name {name:?}");
            }
        }
        if !to.contains('%') && devices.iter().any(|(_, other)| other == to) {
            invalid!("two network devices are to be named {to:?}");
        }
        devices.push((name.clone(), to.clone()));
    }
    Ok(NetDevices(devices))
}

/// dev_valid_name() of the kernel, which also takes one `%d` for the next free number.
fn is_valid(name: &str) -> bool {
    let odd = |b: u8| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace() || b == 0x0b;
    let number = name.matches('%').count() == 0 || (name.matches('%').count() == 1 && name.contains("%d"));
    !name.is_empty()
        && name.len() < IFNAMSIZ
        && name != "."
        && name != ".."
        && !name.bytes().any(odd)
        && number
}

/// A device that was moved, and how it was before.
struct Moved {
    name: String,
    link: Link,
    addresses: Vec<Address>,
    new_index: u32,
}

/// Devices that a container has been given. Its network namespace stays with them until this is dropped.
pub struct Given {
    here: Netlink,
    there: Netlink,
    home: OwnedFd,
    moved: Vec<Moved>,
}

impl Given {
    /// Puts them back as they were: name, addresses, up or down. For a container that has come to nothing.
    pub fn put_back(&self) {
        for device in self.moved.iter().rev() {
            put_back(&self.here, &self.there, self.home.as_fd(), device);
        }
    }
}

impl NetDevices {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Moves them into `namespace`, gives them back their permanent global addresses, sets them up. If one fails, those
    /// already moved are put back as they were. The calling thread enters the namespace for a moment.
    pub fn apply(&self, namespace: BorrowedFd<'_>) -> Result<Given> {
        let here = Netlink::open().context("open a netlink socket")?;
        let home: OwnedFd = std::fs::File::open("/proc/thread-self/ns/net").context("open own netns")?.into();
        setns(namespace, libc::CLONE_NEWNET).context("enter the container's network namespace")?;
        let there = Netlink::open();
        setns(home.as_fd(), libc::CLONE_NEWNET).context("return from the container's network namespace")?;
        let there = there.context("open a netlink socket in the container's network namespace")?;
        let mut given = Given { here, there, home, moved: Vec::new() };
        for (name, to) in &self.0 {
            if let Err(error) = move_one(&mut given, namespace, name, to) {
                given.put_back();
                return Err(error.context(format!("move netDevice {name}")));
            }
        }
        Ok(given)
    }
}

fn move_one(given: &mut Given, namespace: BorrowedFd<'_>, name: &str, to: &str) -> Result<()> {
    let Given { here, there, moved, .. } = given;
    let link = here
        .link(name)
        .with_context(|| format!("link not found for interface {name} on runtime namespace"))?;
    // Before it goes down, which takes its IPv6 addresses away.
    let addresses = here.addresses(link.index).context("fail to get ip addresses")?;
    let to = free_name(there, to)?;
    here.set_up(link.index, false).context("fail to set link down")?;
    if let Err(errno) = here.move_to(link.index, &namespace, &to) {
        let _ = here.set_up(link.index, link.up);
        restore(here, link.index, &addresses);
        return Err(
            Error::from(errno).context(format!("fail to move network device {name} to network namespace"))
        );
    }
    // It may have got another index, where its own was taken.
    let new_index = there.link(&to).map(|link| link.index);
    moved.push(Moved { name: name.to_string(), link, addresses, new_index: new_index.unwrap_or(link.index) });
    let index = new_index.with_context(|| format!("link not found for interface {to} on namespace"))?;
    for address in moved.last().iter().flat_map(|m| &m.addresses).filter(|a| a.is_permanent_and_global()) {
        there.add_address(index, address).context("fail to set up address on namespace")?;
    }
    there.set_up(index, true).with_context(|| format!("fail to set up interface {to} on namespace"))
}

/// The name, with the lowest free number for a `%d`.
fn free_name(there: &Netlink, name: &str) -> Result<String> {
    if !name.contains("%d") {
        return Ok(name.to_string());
    }
    for number in 0..1024 {
        let candidate = name.replace("%d", &number.to_string());
        if candidate.len() < IFNAMSIZ && there.link(&candidate) == Err(Errno::ENODEV) {
            return Ok(candidate);
        }
    }
    invalid!("no free network device name {name}")
}

/// As far as it goes: the error that led here is the one to report.
fn put_back(here: &Netlink, there: &Netlink, home: BorrowedFd<'_>, device: &Moved) {
    let _ = there.set_up(device.new_index, false);
    if there.move_to(device.new_index, &home, &device.name).is_ok() {
        if let Ok(link) = here.link(&device.name) {
            let _ = here.set_up(link.index, device.link.up);
            restore(here, link.index, &device.addresses);
        }
    }
}

fn restore(here: &Netlink, index: u32, addresses: &[Address]) {
    for address in addresses.iter().filter(|address| address.is_permanent_and_global()) {
        // EEXIST: an IPv4 address outlives the down state.
        let _ = here.add_address(index, address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::process::Command;

    fn devices(list: &[(&str, &str)]) -> BTreeMap<String, spec::NetDevice> {
        list.iter().map(|(name, to)| (name.to_string(), spec::NetDevice { name: to.to_string() })).collect()
    }

    #[test]
    fn refusals() {
        let text = |list: &[(&str, &str)]| parse(&devices(list), true, false).unwrap_err().to_string();
        assert_eq!(text(&[("a/b", "")]), "invalid network device name \"a/b\"");
        for name in [".", "..", "a:b", "a b", "a\tb", "sixteen_letters_", "%s", "%d%d", "a\0"] {
            assert!(text(&[("eth0", name)]).starts_with("invalid network device name"), "{name}");
        }
        assert!(text(&[("a", "x"), ("b", "x")]).contains("two network devices"));
        assert!(parse(&devices(&[("a", "")]), false, false)
            .unwrap_err()
            .to_string()
            .contains("without a NET"));
        assert!(parse(&devices(&[("a", "")]), true, true).unwrap_err().to_string().contains("rootless"));
        assert!(parse(&devices(&[]), false, true).unwrap().is_empty());
        assert_eq!(
            parse(&devices(&[("a", "eth%d")]), true, false).unwrap().0,
            [("a".into(), "eth%d".into())]
        );
    }

    fn ip(args: &str) -> String {
        let out = Command::new("ip").args(args.split(' ')).output().unwrap();
        assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Runs in a thread with a network namespace of its own and the descriptor of another.
    fn in_two_namespaces(test: impl FnOnce(BorrowedFd<'_>, &dyn Fn(&str) -> String) + Send + 'static) {
        let unshared = || nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET);
        if !nix::unistd::geteuid().is_root() || Command::new("ip").arg("-V").output().is_err() {
            println!("SKIP needs root and iproute2");
            return;
        }
        let run = std::thread::spawn(move || {
            unshared().unwrap();
            let other = File::open("/proc/thread-self/ns/net").unwrap();
            unshared().unwrap();
            let home = File::open("/proc/thread-self/ns/net").unwrap();
            let there = |args: &str| {
                setns(other.as_fd(), libc::CLONE_NEWNET).unwrap();
                let out = ip(args);
                setns(home.as_fd(), libc::CLONE_NEWNET).unwrap();
                out
            };
            test(other.as_fd(), &there);
        });
        run.join().unwrap();
    }

    #[test]
    fn moves_with_name_addresses_and_state() {
        in_two_namespaces(|other, there| {
            ip("link add one type veth peer name two");
            ip("address add 192.0.2.7/24 dev one");
            ip("address add 2001:db8::7/64 dev one");
            ip("address add 198.51.100.9/32 dev one scope host");
            ip("link set one up");
            ip("address add 203.0.113.1/24 dev two");
            let plan = parse(&devices(&[("one", "eth%d"), ("two", "")]), true, false).unwrap();
            plan.apply(other).unwrap();
            let second = there("address show dev two");
            assert!(second.contains("203.0.113.1/24") && !second.contains("192.0.2.7"), "{second}");
            let seen = there("address show dev eth0");
            assert!(seen.contains("192.0.2.7/24") && seen.contains("2001:db8::7/64"), "{seen}");
            assert!(seen.contains(",UP") && !seen.contains("198.51.100.9"), "{seen}");
            assert!(!ip("link").contains("one"));
        });
    }

    #[test]
    fn a_failure_puts_all_back() {
        in_two_namespaces(|other, there| {
            ip("link add aaa type veth peer name bbb");
            ip("address add 192.0.2.7/24 dev aaa");
            ip("address add 2001:db8::7/64 dev aaa");
            ip("link set aaa up");
            there("link add taken type bridge");
            let plan = parse(&devices(&[("aaa", "moved"), ("bbb", "taken")]), true, false).unwrap();
            let text = plan.apply(other).err().unwrap().to_string();
            assert!(text.starts_with("move netDevice bbb: fail to move network device bbb"), "{text}");
            let seen = ip("address show dev aaa");
            assert!(seen.contains("192.0.2.7/24") && seen.contains("2001:db8::7/64"), "{seen}");
            assert!(seen.contains(",UP"), "{seen}");
            assert!(!there("link").contains("moved"));
            let absent = parse(&devices(&[("nosuch", "")]), true, false).unwrap();
            assert!(absent
                .apply(other)
                .err()
                .unwrap()
                .to_string()
                .contains("link not found for interface nosuch"));
        });
    }
}
