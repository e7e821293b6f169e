//! The programs on the cgroup.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::bpf::program::{Program, NAME_PREFIX};
use crate::error::{Context, Error, Kind, Result};
use crate::state::{explain, State};
use crate::sys::bpf::{self, At, AttachType, ProgType};
use crate::sys::net;

const PLACES: [(ProgType, AttachType); 5] = [
    (ProgType::CgroupSkb, AttachType::CgroupEgress),
    (ProgType::CgroupSkb, AttachType::CgroupIngress),
    (ProgType::CgroupSock, AttachType::CgroupSockCreate),
    (ProgType::SockOps, AttachType::CgroupSockOps),
    ADOPTING,
];
/// There during an update only.
const ADOPTING: (ProgType, AttachType) = (ProgType::CgroupSockopt, AttachType::CgroupSetsockopt);

/// Loads a program. If the kernel refuses it, the error ends with the verifier's last words.
pub fn load(
    program: Program,
    kind: ProgType,
    attach_type: Option<AttachType>,
    state: &State,
) -> Result<OwnedFd> {
    let insns = program.assemble(bpf::map_number(&state.map()));
    let name = &program.name();
    bpf::load(name, kind, attach_type, &insns, None).map_err(|e| {
        if e.raw_os_error() == Some(libc::EPERM) {
            return explain(e);
        }
        let mut log = vec![0u8; 1 << 20];
        let again = bpf::load(name, kind, attach_type, &insns, Some(&mut log));
        let end = log.iter().position(|b| *b == 0).unwrap_or(0);
        let words = String::from_utf8_lossy(&log[..end]);
        let tail: Vec<&str> = words.trim_end().lines().rev().take(4).collect();
        match again {
            Err(_) if !tail.is_empty() => explain(e).context(format!("{name}: {}", tail.join(" < "))),
            _ => explain(e),
        }
    })
}

/// The programs that a state asks for, and where each goes.
fn wanted(state: &State) -> impl Iterator<Item = (Program, (ProgType, AttachType))> {
    let features = state.features();
    let programs = [
        (Program::CgroupEgress(features), true),
        (Program::CgroupIngress(features), true),
        (Program::SocketTags, features.tags),
        (Program::Pace, state.paces()),
    ];
    let all = programs.into_iter().zip(PLACES);
    all.filter(|((_, wanted), _)| *wanted).map(|((program, _), place)| (program, place))
}

/// Loads what would be attached, and lets go of it.
pub fn rehearse(state: &State) -> Result<()> {
    wanted(state).try_for_each(|(program, (kind, at))| load(program, kind, Some(at), state).map(drop))
}

/// A cgroup2 directory with our programs or without.
pub struct Cgroup {
    directory: OwnedFd,
}

impl Cgroup {
    /// `None` if the directory isn't there (any more).
    pub fn open(path: &Path) -> Result<Option<Cgroup>> {
        let directory: OwnedFd = match File::open(path) {
            Ok(f) => f.into(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("opening {}", path.display())),
        };
        if !net::is_cgroup2(directory.as_fd()).with_context(|| format!("statfs {}", path.display()))? {
            let text = format!("{} is no directory of a cgroup2 hierarchy", path.display());
            return Err(Error::new(Kind::Invalid, text));
        }
        Ok(Some(Cgroup { directory }))
    }

    fn at(&self) -> At<'_> {
        At::Cgroup(self.directory.as_fd())
    }

    /// Our programs of one kind that are attached here, with their names and maps.
    fn ours(&self, attach_type: AttachType) -> Result<Vec<(OwnedFd, String, u32)>> {
        let what = || "asking for the programs of the cgroup".to_string();
        let ids = match bpf::query(self.at(), attach_type) {
            Ok(ids) => ids,
            // The cgroup was removed since it was opened, and its programs with it: systemd does that with a scope.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
            Err(e) => return Err(explain(e)),
        };
        let mut found = Vec::new();
        for id in ids {
            let prog = match bpf::prog_by_id(id) {
                Ok(prog) => prog,
                // It may be gone in between. Any other failure must not look as if nothing was attached.
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => continue,
                Err(e) => return Err(e).with_context(|| format!("opening the program {id} of the cgroup")),
            };
            let (name, map) = bpf::prog_info(prog.as_fd()).with_context(what)?;
            if let (true, Some(map)) = (name.starts_with(NAME_PREFIX), map) {
                found.push((prog, name, map));
            }
        }
        Ok(found)
    }

    /// The state of the limits attached here.
    pub fn state(&self) -> Result<Option<State>> {
        for (_, _, map) in self.ours(AttachType::CgroupEgress)? {
            if let Some(state) = State::by_id(map)? {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// Attaches what is missing: both directions, and the sockets' tags if there are any. A program that can't do
    /// all that is asked for by now is replaced, with no packet in between that no program sees.
    pub fn attach(&self, state: &State) -> Result<()> {
        wanted(state).try_for_each(|(program, place)| self.put(state, program, place))
    }

    fn put(
        &self,
        state: &State,
        program: Program,
        (kind, attach_type): (ProgType, AttachType),
    ) -> Result<()> {
        let ours = self.ours(attach_type)?.into_iter().find(|(_, _, map)| *map == state.id());
        if ours.as_ref().is_some_and(|(_, name, _)| program.is_served_by(name)) {
            return Ok(());
        }
        let prog = load(program, kind, Some(attach_type), state)?;
        let old = ours.as_ref().map(|(prog, ..)| prog.as_fd());
        let name = program.name();
        bpf::attach(self.at(), prog.as_fd(), attach_type, bpf::ALLOW_MULTI, old).map_err(|e| {
            match e.raw_os_error() {
                Some(libc::EPERM) => Error::new(
                    Kind::Busy,
                    format!("{name}: a program attached to a cgroup further up allows no other beside it"),
                ),
                _ => Error::from(e).context(format!("attaching {name} to the cgroup")),
            }
        })
    }

    /// Whether TCP's connections are paced here, those at least that are younger than the program.
    pub fn paces(&self) -> Result<bool> {
        Ok(!self.ours(AttachType::CgroupSockOps)?.is_empty())
    }

    /// Attaches [`Program::Adopt`] for a while.
    pub fn adopt(&self, state: &State) -> Result<Adopting<'_>> {
        self.put(state, Program::Adopt, ADOPTING)?;
        Ok(Adopting(self))
    }

    fn take(&self, attach_type: AttachType) -> Result<()> {
        for (prog, ..) in self.ours(attach_type)? {
            match bpf::detach(self.at(), prog.as_fd(), attach_type) {
                Err(e) if e.raw_os_error() != Some(libc::ENOENT) => {
                    return Err(e).with_context(|| "detaching from the cgroup")
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub fn detach(&self) -> Result<()> {
        PLACES.into_iter().try_for_each(|(_, attach_type)| self.take(attach_type))
    }
}

/// As long as it lives connections can be adopted.
pub struct Adopting<'a>(&'a Cgroup);

impl Drop for Adopting<'_> {
    fn drop(&mut self) {
        // Left behind it would do no harm; the next one takes its place.
        let _ = self.0.take(ADOPTING.1);
    }
}
