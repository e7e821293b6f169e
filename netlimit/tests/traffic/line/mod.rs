//! A line with a delay, as a process of its own: every frame arrives so many milliseconds later.

#[allow(unsafe_code)]
mod sys;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// Between a new device `name` here and `eth0` of the namespace of process `pid`. Prints "ready" once both are there.
pub fn main(name: &str, pid: u32, milliseconds: u64) {
    let near = sys::tap(name).expect("a TAP device");
    let far = spawn(move || {
        sys::enter_netns(pid).expect("enters");
        sys::tap("eth0").expect("a TAP device")
    });
    let far = far.join().expect("the far end");
    println!("ready");
    let delay = Duration::from_millis(milliseconds);
    let (a, b) = (near.try_clone().expect("clones"), far.try_clone().expect("clones"));
    let there = spawn(move || carry(near, far, delay));
    carry(b, a, delay);
    let _ = there.join();
}

fn carry(mut from: File, mut to: File, delay: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    spawn(move || {
        let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
        loop {
            if waiting.is_empty() {
                let Ok(next) = receiver.recv() else { return };
                waiting.push_back(next);
            }
            waiting.extend(receiver.try_iter());
            while let Some((due, frame)) = waiting.pop_front() {
                sleep(due.saturating_duration_since(Instant::now()));
                // A device that is down, or full, drops frames as any other.
                let _ = to.write(&frame);
            }
        }
    });
    let mut buffer = vec![0u8; 70_000];
    loop {
        match from.read(&mut buffer) {
            Ok(n) => drop(sender.send((Instant::now() + delay, buffer[..n].to_vec()))),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // The device isn't up yet.
            Err(_) => sleep(Duration::from_millis(10)),
        }
    }
}
