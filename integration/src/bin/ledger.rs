//! `ledger LINES RATE EXIT`: writes LINES (0: without end) numbered lines of 16 bytes, RATE bytes a second (0: as fast as
//! they go), then exits with EXIT. Whoever reads them sees at once what is missing or doubled. A write that fails ends it
//! with 99.

use std::io::Write;
use std::time::{Duration, Instant};

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u64>().expect("LINES RATE EXIT"));
    let mut next = || args.next().expect("LINES RATE EXIT");
    let (lines, rate, code) = (next(), next(), next());
    let start = Instant::now();
    let (mut number, mut out) = (0u64, std::io::stdout().lock());
    let mut chunk = Vec::new();
    while lines == 0 || number < lines {
        let due = match rate {
            0 => number + 256,
            rate => (start.elapsed().as_micros() as u64).saturating_mul(rate) / 16_000_000,
        };
        if due <= number {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        chunk.clear();
        let end = if lines == 0 { due } else { due.min(lines) }.min(number + 4096);
        for n in number..end {
            chunk.extend_from_slice(format!("{n:015}\n").as_bytes());
        }
        if out.write_all(&chunk).and_then(|()| out.flush()).is_err() {
            std::process::exit(99);
        }
        number = end;
    }
    std::process::exit(code as i32);
}
