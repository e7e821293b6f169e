//! `shim logs`: the last of what a container wrote, from the files that its monitor keeps, whether that lives or not.

use super::{look, Options, Place};
use crate::error::Result;
use crate::state::Root;
use crate::sys::map::Map;
use crate::sys::{self};
use crate::{place, record};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Where one stream's output is kept and how far it was printed.
struct Stream {
    ring: PathBuf,
    spool: PathBuf,
    /// Bytes of the ring that count.
    keep: u64,
    at: u64,
}

pub fn logs(place: &Place, options: &Options) -> Result<i32> {
    let disk = place::disk_dir(&place.namespace, &place.id);
    let root = look(place).ok().map(|(root, _)| root);
    // Only so much of a ring is sure to have no hole in it.
    let keep = match &root {
        Some(root) => {
            let task = root.state.task(&place.task);
            task.map_or(&root.setup, |t| t.limits(&root.setup)).ring_limit
        }
        None => record::read(&place.record("")).map_or(0, |record| record.ring_bytes),
    };
    let keep = if keep == 0 { 64 << 10 } else { keep };
    let stream = |n: u8| {
        let file = |kind: &str| disk.join(format!("{}.{n}.{kind}", place.task));
        Stream { ring: file("ring"), spool: file("spool"), keep, at: 0 }
    };
    let mut streams = [stream(1), stream(2)];
    for (n, stream) in streams.iter_mut().enumerate() {
        let unread = root.as_ref().and_then(|root| spooled(place, root, n));
        let text = stream.begin(unread);
        print(n, &text)?;
    }
    while options.is("--follow") {
        let over = look(place).map_or(true, |(root, heads)| {
            heads.is_empty()
                || root.state.task(&place.task).is_none_or(|t| t.init.recorded && t.init.handed_over())
        });
        let mut grown = false;
        for (n, stream) in streams.iter_mut().enumerate() {
            let text = stream.more();
            grown |= !text.is_empty();
            print(n, &text)?;
        }
        if over && !grown {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(if grown { 0 } else { 50 }));
    }
    Ok(0)
}

fn print(stream: usize, text: &[u8]) -> Result<()> {
    match stream {
        0 => {
            let mut out = std::io::stdout().lock();
            out.write_all(text)?;
            out.flush()?;
        }
        _ => std::io::stderr().write_all(text)?,
    }
    Ok(())
}

impl Stream {
    /// The ring; before it, what the client has not read yet and the ring no longer holds.
    fn begin(&mut self, unread: Option<(u64, u64)>) -> Vec<u8> {
        let held = std::fs::metadata(&self.ring).map_or(0, |m| m.len()).min(self.keep);
        let mut text = Vec::new();
        if let Some((from, to)) = unread.filter(|(from, to)| to - from > held) {
            text = read(&self.spool, from, to - from - held);
        }
        text.extend(self.more());
        text
    }

    fn more(&mut self) -> Vec<u8> {
        let size = std::fs::metadata(&self.ring).map_or(0, |m| m.len());
        self.at = self.at.max(size.saturating_sub(self.keep));
        let text = read(&self.ring, self.at, u64::MAX);
        self.at += text.len() as u64;
        text
    }
}

/// The part of the spool that the client has not read.
fn spooled(place: &Place, root: &Root, stream: usize) -> Option<(u64, u64)> {
    let init = &root.state.task(&place.task)?.init;
    let mark = [&init.out, &init.err][stream].as_ref()?.mark as usize;
    let file =
        std::fs::File::options().read(true).write(true).open(place::state_file(&place.directory)).ok()?;
    let map = Map::open(sys::number(&file), false).ok()?;
    let mark = map.header().streams.get(mark.checked_sub(1)?)?;
    Some((sys::load(&mark.spool_read) as u64, sys::load(&mark.spool_write) as u64))
}

fn read(path: &Path, at: u64, length: u64) -> Vec<u8> {
    let mut text = Vec::new();
    if let Ok(mut file) = std::fs::File::open(path) {
        if file.seek(SeekFrom::Start(at)).is_ok() {
            let _ = file.take(length.min(64 << 20)).read_to_end(&mut text);
        }
    }
    text
}
