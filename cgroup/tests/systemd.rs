//! Units of a running systemd. SKIP where it is not the init.

use std::fs;
use std::process::{Child, Command};

use cgroup::location::Manager;
use cgroup::systemd::{annotations, PropertyStep};
use cgroup::{Cgroup, Kind, Layout, Location, Mode, Options, Request, Resources, Transaction};

/// A unit and its only process, which end with the test.
struct Own {
    layout: Layout,
    location: Location,
    child: Child,
}

impl Own {
    fn new(name: &str) -> Option<Own> {
        let layout = Layout::detect().unwrap();
        if !layout.systemd || !nix::unistd::geteuid().is_root() {
            println!("SKIP needs root and systemd as init");
            return None;
        }
        let path = format!("system.slice:hydratest:{name}{}", std::process::id());
        let manager = Manager::Systemd { user: false };
        let request =
            Request { manager, cgroups_path: Some(&path), id: "x", rootless: false, user_root: None };
        let location = Location::resolve(&layout, &request).unwrap();
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        Some(Own { layout, location, child })
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn unit(&self) -> &str {
        &self.location.unit.as_ref().unwrap().name
    }

    fn show(&self, property: &str) -> String {
        let args = ["show", "--value", "-p", property, self.unit()];
        let out = Command::new("systemctl").args(args).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_string()
    }

    fn file(&self, controller: &str, file: &str) -> String {
        let path = self.location.path(controller).unwrap().join(file);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_string()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.location.destroy();
    }
}

fn resources(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

fn disk() -> Option<cgroup::block::Device> {
    cgroup::block::Host::new().unwrap().disks().first().copied()
}

#[test]
fn a_unit_lives_and_keeps_its_limits_over_a_reload() {
    let Some(own) = Own::new("life") else { return };
    let io = disk().map(|d| {
        format!(
            r#","blockIO":{{"throttleReadBpsDevice":[{{"major":{},"minor":{},"rate":1000000}}]}}"#,
            d.major, d.minor
        )
    });
    // v1 hierarchies of some kernels lack memory and cpuset.
    let memory = match own.layout.version_of("memory") {
        Some(_) => r#""memory":{"limit":67108864},"#,
        None => "",
    };
    let json = format!(
        r#"{{{memory}"cpu":{{"shares":512,"quota":25500,"period":50000}},"pids":{{"limit":50}}{},
        "devices":[{{"allow":false,"access":"rwm"}},{{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}}]}}"#,
        io.clone().unwrap_or_default()
    );
    let properties = annotations([("org.systemd.property.TimeoutStopSec", "uint64 17")]).unwrap();
    let options = Options { properties, description: "a test".to_string(), ..Options::default() };
    let mut cgroup = Cgroup::create(&own.layout, own.location.clone(), &resources(&json), options).unwrap();
    assert!(cgroup.entry().unwrap().by_pid);
    cgroup.attach(own.pid()).unwrap();
    assert_eq!(cgroup.procs().unwrap(), [own.pid()]);
    assert_eq!(own.show("Description"), "a test");
    assert_eq!(own.show("TimeoutStopUSec"), "17s");
    assert_eq!(own.show("TasksMax"), "50");
    let v2 = own.layout.mode == Mode::V2;
    let check = |pids: &str| {
        assert_eq!(own.file("pids", "pids.max"), pids);
        match v2 {
            true => {
                assert_eq!(own.file("cpu", "cpu.weight"), "59");
                assert_eq!(own.file("memory", "memory.max"), "67108864");
                if io.is_some() {
                    assert!(
                        own.file("io", "io.max").contains("rbps=1000000"),
                        "{}",
                        own.file("io", "io.max")
                    );
                }
            }
            false => assert_eq!(own.file("cpu", "cpu.shares"), "512"),
        }
    };
    check("50");
    reload();
    check("50");

    // An update is a transaction over properties and files, and undone as one.
    let update = resources(r#"{"pids":{"limit":70},"cpu":{"shares":1024}}"#);
    let plan = cgroup.plan(&own.layout, &update).unwrap();
    let mut failing = Transaction::new();
    failing.step(PropertyStep::new(&cgroup, &update).unwrap().unwrap());
    failing.writes(&cgroup, &plan.writes).unwrap();
    failing.pair("foreign", || Err(cgroup::Error::new(Kind::System, "no")), || Ok(()));
    let e = failing.run().unwrap_err();
    assert!(e.to_string().contains("nothing was changed"), "{e}");
    check("50");
    assert_eq!(own.show("TasksMax"), "50");

    let mut done = Transaction::new();
    let update = resources(r#"{"pids":{"limit":70}}"#);
    done.step(PropertyStep::new(&cgroup, &update).unwrap().unwrap());
    let plan = cgroup.plan(&own.layout, &update).unwrap();
    done.writes(&cgroup, &plan.writes).unwrap();
    done.run().unwrap();
    check("70");
    reload();
    check("70");

    cgroup.kill_all().unwrap();
    let paths: Vec<_> = own.location.branches.iter().map(|b| b.path.clone()).collect();
    drop(own);
    assert!(paths.iter().all(|p| !p.exists()), "{paths:?}");
}

fn reload() {
    assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
}

#[test]
fn a_refused_property_leaves_no_unit() {
    let Some(own) = Own::new("refused") else { return };
    let properties = annotations([("org.systemd.property.NoSuchThing", "true")]).unwrap();
    let options = Options { properties, ..Options::default() };
    let mut cgroup = Cgroup::create(&own.layout, own.location.clone(), &resources("{}"), options).unwrap();
    let e = cgroup.attach(own.pid()).unwrap_err();
    assert_eq!(e.kind(), Kind::Systemd, "{e}");
    assert!(e.to_string().contains("NoSuchThing"), "{e}");
    assert!(own.location.branches.iter().all(|b| !b.path.exists()));
}

/// On v2: the cgroup of somebody without privileges, below their own instance of systemd, is in the guest's other
/// tests; here only that one is told where there is none.
#[test]
fn no_bus_is_said() {
    let Some(_own) = Own::new("bus") else { return };
    if std::env::var_os("XDG_RUNTIME_DIR").is_some() || std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_some()
    {
        println!("SKIP a session of a user");
        return;
    }
    let e = cgroup::systemd::user_cgroup().unwrap_err();
    assert!(e.to_string().contains("XDG_RUNTIME_DIR"), "{e}");
}
